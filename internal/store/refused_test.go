package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// refuse has a trigger refuse what is done to some locks.
func refuse(t *testing.T, db *sql.DB, state, when, ids string) {
	t.Helper()
	contract.Exec(t, db, fmt.Sprintf(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN IF NEW.lock_id IN (%s) THEN RAISE EXCEPTION 'no' USING ERRCODE = '%s'; END IF; RETURN NEW; END $$`, ids, state))

	kind := "TRIGGER refuse BEFORE UPDATE"
	if when == "commit" {
		kind = "CONSTRAINT TRIGGER refuse AFTER UPDATE"
	}

	text := "CREATE " + kind + " ON " + table.String()
	if when == "commit" {
		text += " DEFERRABLE INITIALLY DEFERRED"
	}

	contract.Exec(t, db, text+" FOR EACH ROW EXECUTE FUNCTION refuse()")
}

// grantMany grants as many locks as there are, and returns their states.
func grantMany(t *testing.T, s *store.Store, n int) []store.State {
	t.Helper()

	states := make([]store.State, n)

	var group sync.WaitGroup

	for i := range n {
		group.Go(func() {
			res, err := s.Acquire(t.Context(), fmt.Sprintf("%03d", i), fmt.Sprint("me ", i), ttl, margin)
			if err != nil || res.Verdict != store.Granted {
				t.Errorf("Acquire: %+v, %v", res, err)
			}

			states[i] = store.State{Generation: res.Row.Generation}
		})
	}

	group.Wait()

	if t.Failed() {
		t.FailNow()
	}

	return states
}

// releaseMany releases them at once and returns the errors.
func releaseMany(ctx context.Context, s *store.Store, states []store.State) []error {
	errs := make([]error, len(states))

	var group sync.WaitGroup

	for i, state := range states {
		group.Go(func() {
			res, err := s.Release(ctx, fmt.Sprintf("%03d", i), state, 0)
			if err == nil && res.Verdict != store.Granted {
				err = fmt.Errorf("%+v", res)
			}

			errs[i] = err
		})
	}

	group.Wait()

	return errs
}

// TestRefusedRowsCostThemselves: whatever a row is refused for, the other releases of the
// statement are made.
func TestRefusedRowsCostThemselves(t *testing.T) {
	t.Parallel()

	for i, state := range []string{"54000", "53400", "42P01", "42703", "42883", "42501", "0A000", "XX001", "P0001"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()

			s, db := newStore(t, "pgx")
			states := grantMany(t, s, 100)
			refuse(t, db, state, []string{"commit", "once"}[i%2], "'000', '042'")

			for i, err := range releaseMany(t.Context(), s, states) {
				if refused := i == 0 || i == 42; refused != (err != nil) {
					t.Errorf("release of %d: %v", i, err)
				}
			}
		})
	}
}

// TestReleaseWithoutNotify: a release that can't notify is made all the same, alone or with
// others, and a grant is given back; the log says so once.
func TestReleaseWithoutNotify(t *testing.T) {
	t.Parallel()

	for _, state := range []string{"42883", "54000", "42501"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			eachDriver(t, func(t *testing.T, driver string) {
				s, db := newStore(t, driver)

				var (
					log bytes.Buffer
					mu  sync.Mutex
				)

				s.Log(slog.New(slog.NewTextHandler(locked{&mu, &log}, nil)))

				states := grantMany(t, s, 40)
				contract.Exec(t, db, "UPDATE "+table.String()+" SET contended_until = clock_timestamp() + interval '1 hour'")
				contract.Exec(t, db, "ALTER FUNCTION pg_catalog.pg_notify(text, text) RENAME TO pg_notify_not")

				if state != "42883" { // the function is there
					contract.Exec(t, db, `CREATE FUNCTION pg_catalog.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS
						$$ BEGIN RAISE EXCEPTION 'no notifications' USING ERRCODE = '`+state+`'; END $$`)
				}

				res, err := s.Release(t.Context(), "039", states[39], 0)
				if err != nil || res.Verdict != store.Granted || res.Notified {
					t.Errorf("Release alone: %+v, %v", res, err)
				}

				if freed, err := s.GiveBack(t.Context(), []string{"038"}, []string{"me 38"}, false); err != nil || len(freed) != 1 {
					t.Errorf("GiveBack: %v, %v", freed, err)
				}

				for i, err := range releaseMany(t.Context(), s, states[:38]) {
					if err != nil {
						t.Errorf("release of %d: %v", i, err)
					}
				}

				s.Wait()

				if n := strings.Count(log.String(), "level=INFO"); n != 1 || strings.Count(log.String(), "\n") != 1 {
					t.Errorf("the log:\n%s", log.String())
				}
			})
		})
	}
}

// locked is a writer for several.
type locked struct {
	mu *sync.Mutex
	*bytes.Buffer
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.Buffer.Write(p)
}

// TestTooLongForItsColumn: the error says which columns it may be.
func TestTooLongForItsColumn(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)
		contract.Exec(t, db, "ALTER TABLE "+table.String()+" ALTER COLUMN owner TYPE varchar(40)")

		_, err := s.Acquire(t.Context(), "a", strings.Repeat("o", 41), ttl, margin)
		if err == nil || !strings.Contains(err.Error(), "owner") || !strings.Contains(err.Error(), table.String()) {
			t.Errorf("%v, want it to name the column and the table", err)
		}
	})
}

// TestAlteredTable: plans that connections have prepared for a table that was altered since
// are made anew, whatever the verb and the connection.
func TestAlteredTable(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)
		db.SetMaxIdleConns(8)

		kinds := []string{"varchar(300)", "text"}
		n := 0
		alter := func() {
			contract.Exec(t, db, "ALTER TABLE "+table.String()+" ALTER COLUMN owner TYPE "+kinds[n%2])
			n++
		}

		verbs := func(i int) error {
			ctx, id, owner := t.Context(), fmt.Sprint("lock ", i), fmt.Sprint("me ", i)

			_, err := s.Create(ctx, id)
			if err != nil {
				return fmt.Errorf("create: %w", err)
			}

			res, err := s.Acquire(ctx, id, owner, ttl, margin)
			if err != nil || res.Verdict != store.Granted {
				return fmt.Errorf("acquire: %+v, %w", res, err)
			}

			if _, err := s.Claim(ctx, id, "another", ttl, margin, store.Mark{For: time.Second}); err != nil {
				return fmt.Errorf("claim: %w", err)
			}

			if res, err = s.Refresh(ctx, id, store.State{Generation: res.Row.Generation}, owner, ttl, margin); err != nil {
				return fmt.Errorf("refresh: %w", err)
			}

			if _, _, err := s.Renew(ctx, []store.Renewal{{LockID: id, Generation: res.Row.Generation, TTL: ttl}}, nil); err != nil {
				return fmt.Errorf("renew: %w", err)
			}

			if _, err := s.Get(ctx, id); err != nil {
				return fmt.Errorf("get: %w", err)
			}

			if _, err := s.Release(ctx, id, store.State{Generation: res.Row.Generation}, 0); err != nil {
				return fmt.Errorf("release: %w", err)
			}

			return nil
		}

		for range 5 {
			var group sync.WaitGroup

			for i := range 12 {
				group.Go(func() {
					if err := verbs(i); err != nil {
						t.Error(err)
					}
				})
			}

			group.Wait()
			alter()

			if err := verbs(0); err != nil {
				t.Errorf("alone: %v", err)
			}
		}
	})
}

// TestGuardOfAnAlteredTable: a guard can't be repeated in its transaction, and its error
// says what to do.
func TestGuardOfAnAlteredTable(t *testing.T) {
	t.Parallel()

	s, _ := newStore(t, "pgx")

	for _, test := range []struct {
		err  error
		want bool
	}{
		{&stale{}, true},
		{errors.New("?"), false},
	} {
		if got := s.GuardFailed(test.err); strings.Contains(got.Error(), "repeat the transaction") != test.want || !errors.Is(got, test.err) {
			t.Errorf("%v", got)
		}
	}
}

type stale struct{}

func (*stale) Error() string { return "cached plan must not change result type" }
func (*stale) Field(name byte) string {
	return map[byte]string{'C': "0A000", 'R': "RevalidateCachedQuery"}[name]
}
