package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestLostReplyOfMany: when the connection breaks under a statement for many, nobody
// knows what became of it. Each request is settled by itself: who is told that it was
// granted has the lock, and the others are told that it isn't known.
func TestLostReplyOfMany(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx := t.Context()

		// The commit waits for what the test holds.
		contract.Exec(t, db, `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$`)

		const locks = 16
		for i := range locks {
			if _, err := s.Create(ctx, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}

		contract.Exec(t, db, `CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON `+table.String()+`
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()`)

		barrier, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}

		defer func() { _ = barrier.Close() }() // it is this test's alone

		if _, err := barrier.ExecContext(ctx, "SELECT pg_advisory_lock(42)"); err != nil {
			t.Fatal(err)
		}

		type outcome struct {
			id, owner string
			res       store.Result
			err       error
		}

		outcomes := make(chan outcome, locks)

		for i := range locks {
			go func() {
				o := outcome{id: fmt.Sprint(i), owner: fmt.Sprint("me ", i)}
				o.res, o.err = s.Acquire(ctx, o.id, o.owner, ttl, margin)
				outcomes <- o
			}()
		}

		// One alone and then some together.
		blocked := `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`

		contract.Await(t, "two statements wait at their commit", func() bool { return contract.Query[int](t, db, blocked) >= 2 })

		if _, err := barrier.ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event = 'advisory'`); err != nil {
			t.Fatal(err)
		}

		if _, err := barrier.ExecContext(ctx, "SELECT pg_advisory_unlock(42)"); err != nil {
			t.Fatal(err)
		}

		granted := 0

		for range locks {
			o := <-outcomes

			seen, err := s.Get(context.WithoutCancel(ctx), o.id)
			if err != nil {
				t.Fatal(err)
			}

			switch {
			case o.err == nil && o.res.Verdict == store.Granted:
				granted++

				if !seen.Row.Held() || seen.Row.Generation != o.res.Row.Generation || seen.Row.Owner != o.res.Row.Owner {
					t.Errorf("%s: granted %+v, the table shows %+v", o.id, o.res.Row, seen.Row)
				}
			case o.err == nil:
				t.Errorf("%s: %+v, but nobody else asked for it", o.id, o.res)
			case !errors.Is(o.err, store.ErrUnknownOutcome):
				t.Errorf("%s: %v, want ErrUnknownOutcome", o.id, o.err)
			}
		}

		if s.Full() && granted != locks {
			t.Errorf("%d of %d were granted in the end, where each can be settled", granted, locks)
		}

		t.Logf("%d of %d granted", granted, locks)
	})
}

// TestLateGrants: a grant that comes when its caller has left is reported, one of each
// caller that was told that the outcome isn't known; a refresh is not: its caller may
// still be at work under the lease that it extends.
func TestLateGrants(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, _ *store.Store, db *sql.DB) {
		late := make(chan string, 100)
		s := store.New(db, table, func(id string, res store.Result, _ time.Duration) {
			late <- fmt.Sprint(id, " ", res.Row.Generation)
		})

		contract.Exec(t, db, `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$`)

		for _, id := range []string{"first", "a", "b", "c"} {
			if _, err := s.Create(t.Context(), id); err != nil {
				t.Fatal(err)
			}
		}

		contract.Exec(t, db, `CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON `+table.String()+`
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()`)

		barrier, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}

		defer func() { _ = barrier.Close() }() // it is this test's alone

		for verb, call := range map[string]func(ctx context.Context, id string) (store.Result, error){
			"acquire": func(ctx context.Context, id string) (store.Result, error) {
				return s.Acquire(ctx, id, "me "+id, ttl, margin)
			},
			"refresh": func(ctx context.Context, id string) (store.Result, error) {
				seen, err := s.Get(context.WithoutCancel(ctx), id)
				if err != nil {
					return seen, err
				}

				return s.Refresh(ctx, id, store.State{Generation: seen.Row.Generation}, "me "+id, ttl, margin)
			},
		} {
			// Without the trigger. (PostgreSQL 12 can't disable one of a partitioned table.)
			contract.Exec(t, db, `DO $$ BEGIN
				PERFORM set_config('session_replication_role', 'replica', true);
				UPDATE `+table.String()+` SET generation = 1, expires_at = clock_timestamp();
			END $$`)

			if _, err := barrier.ExecContext(t.Context(), "SELECT pg_advisory_lock(42)"); err != nil {
				t.Fatal(err)
			}

			type outcome struct {
				res store.Result
				err error
			}

			leaving, leave := context.WithCancel(t.Context())
			defer leave()

			outcomes := map[string]chan outcome{}
			ask := func(ctx context.Context, id string) {
				outcomes[id] = make(chan outcome, 1)

				go func() {
					res, err := call(ctx, id)
					outcomes[id] <- outcome{res, err}
				}()
			}

			ask(t.Context(), "first")
			awaitWaiters(t, db, 1)
			ask(leaving, "a")
			ask(leaving, "b")
			ask(t.Context(), "c")
			contract.Await(t, "all are sent, together or not", func() bool { // their rows are being changed
				return contract.Query[int](t, db, "SELECT count(*) FROM "+table.String()+
					" WHERE lock_id IN ('a', 'b', 'c') AND xmax::text <> '0'") == 3
			})
			leave()

			for _, id := range []string{"a", "b"} {
				if o := <-outcomes[id]; !errors.Is(o.err, store.ErrUnknownOutcome) {
					t.Errorf("%s of %s, whose caller left: %+v, %v", verb, id, o.res, o.err)
				}
			}

			if _, err := barrier.ExecContext(t.Context(), "SELECT pg_advisory_unlock(42)"); err != nil {
				t.Fatal(err)
			}

			for _, id := range []string{"first", "c"} {
				if o := <-outcomes[id]; o.err != nil || o.res.Verdict != store.Granted {
					t.Errorf("%s of %s: %+v, %v", verb, id, o.res, o.err)
				}
			}

			s.Wait()

			want := []string{"a 2", "b 2"}
			if verb == "refresh" {
				want = nil
			}

			var got []string
			for len(late) > 0 {
				got = append(got, <-late)
			}

			slices.Sort(got)

			if !slices.Equal(got, want) {
				t.Errorf("%s: late: %q, want %q", verb, got, want)
			}
		}
	})
}
