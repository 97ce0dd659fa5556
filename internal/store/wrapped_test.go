package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/listen"
	"github.com/ismurov/pglocker/internal/store"
)

// eachWrapped runs a test for each wrapper around pgx that says that it is pgx.
func eachWrapped(t *testing.T, test func(t *testing.T, s *store.Store, db *sql.DB)) {
	t.Parallel()

	for _, driver := range []string{contract.Traced, contract.Opaque, contract.Converting} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()

			s, db := newStore(t, driver)
			if _, ok := db.Driver().(*stdlib.Driver); !ok {
				t.Fatalf("the driver is %T, which tells nothing", db.Driver())
			}

			test(t, s, db)
		})
	}
}

// TestWrapped: what pgx is asked directly goes through a wrapper that says it were pgx.
func TestWrapped(t *testing.T) {
	eachWrapped(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx := t.Context()

		held, err := s.Acquire(ctx, "a", "me", ttl, margin)
		if err != nil || held.Verdict != store.Granted {
			t.Fatalf("Acquire: %+v, %v", held, err)
		}

		if res, err := s.Claim(ctx, "a", "you", ttl, margin, store.Mark{For: store.LongestMark}); err != nil ||
			res.Verdict != store.Busy || !res.Marked || res.Row.Owner != "me" {
			t.Errorf("Claim of a held lock: %+v, %v", res, err)
		}

		own, ok := s.OpenOwn(store.RenewName)
		if !ok {
			t.Fatal("no connection of its own")
		}

		t.Cleanup(func() { _ = own.Close() }) // nothing was left to be said on it

		renewed, _, err := s.On(own).Renew(ctx, []store.Renewal{
			{LockID: "a", Generation: held.Row.Generation, TTL: 2 * ttl}, {LockID: `"{,}`, Generation: 1, TTL: ttl},
		}, nil)
		if err != nil || renewed[0].State != store.Renewed || renewed[1].State != store.RenewGone {
			t.Errorf("Renew: %+v, %v", renewed, err)
		}

		if held, err = s.Refresh(ctx, "a", store.State{Generation: held.Row.Generation}, "me again", ttl, margin); err != nil ||
			held.Verdict != store.Granted {
			t.Fatalf("Refresh: %+v, %v", held, err)
		}

		if n := contract.Query[int64](t, db, s.GuardSQL(), s.GuardArgs("a", held.Row.Generation)...); n != held.Row.Generation {
			t.Errorf("the guard shows generation %d, want %d", n, held.Row.Generation)
		}

		if res, err := s.Release(ctx, "a", store.State{Generation: held.Row.Generation}, 0); err != nil ||
			res.Verdict != store.Granted || !res.Notified {
			t.Errorf("Release of a lock that somebody waits for: %+v, %v", res, err)
		}

		for _, verb := range []string{"insert", "get", "refresh", "release", "acquire"} {
			var asked []*store.Asked
			for i := range 3 {
				asked = append(asked, &store.Asked{ID: fmt.Sprintf(`{"%d"}`, i), Owner: `me, \ "and" NULL`, TTL: ttl, Generation: 2})
			}

			if verb == "release" { // after the refresh
				for _, a := range asked {
					a.Generation = 3
				}
			}

			if err := store.AskTogether(ctx, s, verb, asked); err != nil {
				t.Fatal(err)
			}

			for _, a := range asked {
				if a.Err != nil || !a.Matched {
					t.Errorf("%s together: %+v", verb, a)
				}
			}
		}

		if conn, err := s.OpenListening(ctx); !errors.Is(err, listen.ErrUnsupported) {
			t.Errorf("OpenListening: %v, %v, want ErrUnsupported", conn, err)
		}

		if err := s.Notify(ctx, "channel"); err != nil {
			t.Errorf("Notify: %v", err)
		}
	})
}

// TestWrappedUnknown: a session that ends before its commit is acknowledged leaves open
// what was done, and so does a caller who leaves, at once.
func TestWrappedUnknown(t *testing.T) {
	eachWrapped(t, func(t *testing.T, _ *store.Store, db *sql.DB) {
		contract.Exec(t, db, "ALTER TABLE "+table.String()+" DROP COLUMN owner") // else it would be settled

		s := store.New(db, table, nil)
		if _, err := s.Create(t.Context(), "a"); err != nil {
			t.Fatal(err)
		}

		contract.Exec(t, db, `CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$`)
		contract.Exec(t, db, `CREATE CONSTRAINT TRIGGER die AFTER UPDATE ON `+table.String()+`
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()`)

		if res, err := s.Acquire(t.Context(), "a", "me", ttl, margin); !errors.Is(err, store.ErrUnknownOutcome) {
			t.Errorf("Acquire whose session ended: %+v, %v, want ErrUnknownOutcome", res, err)
		}

		contract.Exec(t, db, "DROP TRIGGER die ON "+table.String())

		locked := lockRow(t, db, "a")

		ctx, cancel := context.WithCancel(t.Context())

		var acquiring sync.WaitGroup

		acquiring.Go(func() {
			if res, err := s.Acquire(ctx, "a", "me", ttl, margin); !errors.Is(err, store.ErrUnknownOutcome) {
				t.Errorf("Acquire whose caller left: %+v, %v, want ErrUnknownOutcome", res, err)
			}
		})

		awaitBlocked(t, db)
		cancel()
		acquiring.Wait() // while the row is still locked

		if err := locked.Rollback(); err != nil {
			t.Error(err)
		}

		s.Wait()
	})
}
