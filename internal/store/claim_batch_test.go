package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestClaimsTogether: a claim that shares its statement has the answer that it would have had
// alone, unless another transaction has its row locked: then it has none.
func TestClaimsTogether(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx := t.Context()

		for _, id := range []string{"free", "locked free"} {
			if _, err := s.Create(ctx, id); err != nil {
				t.Fatal(err)
			}
		}

		held := make(map[string]store.Row)

		for _, id := range []string{"held", "marked", "locked held"} {
			res, err := s.Acquire(ctx, id, "holder", time.Hour, margin)
			if err != nil {
				t.Fatal(err)
			}

			held[id] = res.Row
		}

		if s.Full() {
			res, err := s.Claim(ctx, "marked", "first", ttl, margin, store.Mark{For: store.LongestMark, Signature: 3})
			if err != nil || !res.Marked {
				t.Fatal(res, err)
			}
		}

		stranger := lockRow(t, db, "locked free")
		defer func() { _ = stranger.Rollback() }()

		stranger2 := lockRow(t, db, "locked held")
		defer func() { _ = stranger2.Rollback() }()

		var claims []*store.Claimed
		for i, id := range []string{"free", "free", "held", "marked", "locked free", "locked held", "missing"} {
			claims = append(claims, &store.Claimed{
				ID: id, Owner: fmt.Sprint("waiter ", i), Mark: store.Mark{For: time.Second, Signature: int64(1000 + i)},
			})
		}

		if err := store.ClaimTogether(ctx, s, ttl, claims); err != nil {
			t.Fatal(err)
		}

		granted := 0

		for _, c := range claims {
			if c.Err != nil {
				t.Errorf("%s: %v", c.ID, c.Err)
			}

			// Without marks, what the snapshot shows of a row that was passed over is told.
			answered := c.ID != "missing" && (!s.Full() || c.ID != "locked free" && c.ID != "locked held")
			res := c.Result

			if c.ID == "free" && res.Verdict != store.Granted {
				continue // the other of two
			}

			if c.Answered != answered {
				t.Errorf("%s: answered is %t", c.ID, c.Answered)
			}

			switch c.ID {
			case "free":
				granted++

				if res.Row.Generation < 2 || s.Full() && res.Row.Owner != c.Owner || res.Row.Remaining() < ttl-time.Second {
					t.Errorf("granted %+v to %s", res.Row, c.Owner)
				}
			case "held", "marked":
				if res.Verdict != store.Busy || res.Row.Generation != held[c.ID].Generation || !res.Row.ExpiresAt.Equal(held[c.ID].ExpiresAt) {
					t.Errorf("%s: %+v, want busy and unchanged", c.ID, res)
				}

				if !s.Full() {
					continue
				}

				if !res.Marked || store.SignatureOf(res.Row.ContendedUntil) != c.Mark.Signature {
					t.Errorf("%s: marked until %s, want that signed %d", c.ID, res.Row.ContendedUntil, c.Mark.Signature)
				}

				stands := res.Row.ContendedUntil.Sub(res.Row.Now)
				if c.ID == "marked" && (store.SignatureOf(res.Mark) != 3 || res.Row.ContendedUntil.Before(res.Mark)) {
					t.Errorf("the mark before was %s, and the new one stands for %s", res.Mark, stands)
				}

				if c.ID == "held" && (!res.Mark.IsZero() || stands > time.Second) {
					t.Errorf("there was no mark before, but %s, and the new one stands for %s", res.Mark, stands)
				}
			case "locked free", "locked held":
				if res.Verdict == store.Granted {
					t.Errorf("%s was granted while somebody had its row locked", c.ID)
				}
			}
		}

		if granted != 1 {
			t.Errorf("one lock was granted %d times", granted)
		}
	})
}

// TestOneRefusedClaim: a claim that the table refuses costs its neighbours nothing.
func TestOneRefusedClaim(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		var claims []*store.Claimed

		for i := range 20 {
			id := fmt.Sprintf("lock %02d", i)
			if _, err := s.Create(t.Context(), id); err != nil {
				t.Fatal(err)
			}

			claims = append(claims, &store.Claimed{ID: id, Owner: "me", Mark: store.Mark{For: time.Second}})
		}

		contract.Exec(t, db, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN IF NEW.lock_id = 'lock 07' THEN RAISE 'not this one'; END IF; RETURN NEW; END $$`)
		addTrigger(t, db, "refuse", "BEFORE UPDATE", "EXECUTE FUNCTION refuse()")

		if err := store.ClaimTogether(t.Context(), s, ttl, claims); err != nil {
			t.Fatal(err)
		}

		for _, c := range claims {
			if refused := c.ID == "lock 07"; (c.Err != nil) != refused || !refused && c.Result.Verdict != store.Granted {
				t.Errorf("%s: %+v, %v", c.ID, c.Result, c.Err)
			}
		}
	})
}

// TestLockedRowsLeaveRoom: however many rows strangers have locked, and however many requests
// wait for each of them, a few statements wait, and the requests for other rows are answered.
func TestLockedRowsLeaveRoom(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // else it would hang where it should fail
		defer cancel()

		const (
			rows = 12
			room = 3
		)

		var (
			strangers []*sql.Tx
			ids       []string
		)

		for i := range rows {
			ids = append(ids, fmt.Sprintf("locked %02d", i))
			if _, err := s.Create(ctx, ids[i]); err != nil {
				t.Fatal(err)
			}
		}

		verbs := map[string]func(id string) (store.Result, error){
			"acquire": func(id string) (store.Result, error) { return s.Acquire(ctx, id, "me "+id, time.Minute, margin) },
			"claim": func(id string) (store.Result, error) {
				return s.Claim(ctx, id, "me "+id, time.Minute, margin, store.Mark{For: time.Second})
			},
			"refresh": func(id string) (store.Result, error) {
				return s.Refresh(ctx, id, store.State{Generation: 1}, "me "+id, time.Minute, margin)
			},
			"release": func(id string) (store.Result, error) {
				return s.Release(ctx, id, store.State{Generation: 1}, 0)
			},
			"release later": func(id string) (store.Result, error) {
				return s.Release(ctx, id, store.State{Generation: 1}, time.Hour)
			},
		}

		for verb, call := range verbs {
			contract.Exec(t, db, "UPDATE "+table.String()+" SET generation = 1, expires_at = clock_timestamp()")

			strangers = strangers[:0]
			for _, id := range ids {
				strangers = append(strangers, lockRow(t, db, id))
			}

			var group sync.WaitGroup
			for _, id := range ids {
				group.Go(func() {
					if res, err := call(id); err != nil || res.Verdict != store.Granted {
						t.Errorf("%s of %s: %+v, %v", verb, id, res, err)
					}
				})
			}

			awaitWaiters(t, db, room)

			for range 5 {
				res, err := s.Acquire(ctx, "other", "me", time.Minute, margin)
				if err != nil || res.Verdict != store.Granted {
					t.Fatalf("beside %s of locked rows: %+v, %v", verb, res, err)
				}

				if res, err = s.Release(ctx, "other", store.State{Generation: res.Row.Generation}, 0); err != nil || res.Verdict != store.Granted {
					t.Fatalf("beside %s of locked rows: %+v, %v", verb, res, err)
				}
			}

			if n := contract.Query[int](t, db, `SELECT count(*) FROM pg_stat_activity
				WHERE datname = current_database() AND wait_event_type = 'Lock'`); n > room {
				t.Errorf("%d statements wait for the rows to %s, want %d at most", n, verb, room)
			}

			for _, tx := range strangers {
				if err := tx.Rollback(); err != nil {
					t.Fatal(err)
				}
			}

			group.Wait()
		}
	})
}

// TestFlushedTogether: a batch of claims or releases is committed synchronously if any one
// of them has to be, and else isn't.
func TestFlushedTogether(t *testing.T) {
	t.Parallel()

	for setting, want := range map[string]string{"off": "on", "on": "on", "remote_apply": "remote_apply"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			eachDriver(t, func(t *testing.T, driver string) {
				ctx := t.Context()
				url := newDatabase(t).String()
				admin := contract.Open(t, driver, url)

				if err := store.Migrate(ctx, admin, table, nil); err != nil {
					t.Fatal(err)
				}

				// A deferred trigger runs as a part of the commit.
				contract.Exec(t, admin, `CREATE TABLE commits (lock_id text, setting text)`)
				contract.Exec(t, admin, `CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
					INSERT INTO public.commits VALUES (NEW.lock_id, current_setting('synchronous_commit'));
					RETURN NULL; END $$`)
				contract.Exec(t, admin, `CREATE CONSTRAINT TRIGGER record AFTER UPDATE ON `+table.String()+`
					DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION record()`)
				contract.Exec(t, admin, `DO $$ BEGIN EXECUTE format(
					'ALTER DATABASE %I SET synchronous_commit = `+setting+`', current_database()); END $$`)

				s := store.New(contract.Open(t, driver, url), table, nil)

				for _, id := range []string{"a", "b", "z"} { // z is free, and a and b are held
					if _, err := s.Create(ctx, id); err != nil {
						t.Fatal(err)
					}
				}

				contract.Exec(t, admin, `UPDATE `+table.String()+` SET expires_at = clock_timestamp() + interval '1 hour'
					WHERE lock_id < 'z'`)

				expect := func(what, want string, changed int, ask func() error) {
					t.Helper()

					contract.Exec(t, admin, "DELETE FROM commits")

					if err := ask(); err != nil {
						t.Fatal(err)
					}

					got := column[string](t, admin, "SELECT setting FROM commits")
					if len(got) != changed || slices.ContainsFunc(got, func(got string) bool { return got != want }) {
						t.Errorf("%s: committed with %q, want %d times %s", what, got, changed, want)
					}
				}

				claim := func(ids ...string) func() error {
					var claims []*store.Claimed
					for _, id := range ids {
						claims = append(claims, &store.Claimed{ID: id, Owner: "me", Mark: store.Mark{For: time.Second}})
					}

					return func() error { return store.ClaimTogether(ctx, s, ttl, claims) }
				}

				release := func(generation int64, hold map[string]time.Duration) func() error {
					return func() error {
						return store.ReleaseTogether(ctx, s, map[string]int64{"a": generation, "b": generation}, hold)
					}
				}

				expect("claims that leave marks", "off", 2, claim("a", "b"))
				expect("claims of which one is granted", want, 3, claim("a", "b", "z"))
				expect("releases at once", "off", 2, release(1, nil))
				expect("releases of which one is held on", want, 2, release(2, map[string]time.Duration{"b": time.Hour}))

				if held := contract.Query[string](t, admin, "SELECT string_agg(lock_id, ' ') FROM "+table.String()+
					" WHERE expires_at > clock_timestamp() + interval '50 min'"); held != "b" {
					t.Errorf("%q is held on, want b", held)
				}
			})
		})
	}
}
