package faulttest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// setDefault changes a setting for all sessions that begin from now on.
func setDefault(t *testing.T, db *sql.DB, name, value string) {
	t.Helper()
	contract.Exec(t, db, fmt.Sprintf(
		"DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET %s = %%L', current_database(), '%s'); END $$", name, value))
}

// TestIsolation: where transactions are stricter by default they fail when they
// meet. Nobody sees that, whatever the table.
func TestIsolation(t *testing.T) {
	t.Parallel()

	for _, level := range []string{"repeatable read", "serializable"} {
		contract.EachDriver(t, func(t *testing.T, driver string) {
			t.Parallel()

			for name, columns := range map[string]string{"six columns": "", "three columns": contract.ThreeColumns} {
				t.Run(level+", "+name, func(t *testing.T) {
					t.Parallel()

					databaseURL := contract.NewDatabase(t)
					admin := contract.Open(t, driver, databaseURL)

					contract.MakeTable(t, admin, columns)

					setDefault(t, admin, "default_transaction_isolation", level)

					var lockers []*pglocker.Locker

					for range 2 {
						db := contract.Open(t, driver, databaseURL)
						if got := contract.Query[string](t, db, "SHOW transaction_isolation"); got != level {
							t.Fatalf("the default is %s", got)
						}

						db.SetMaxOpenConns(16)

						locker, err := pglocker.New(db, &pglocker.Config{})
						contract.Must(t, err)
						t.Cleanup(func() { contract.CloseLocker(t, locker) })

						lockers = append(lockers, locker)
					}

					contract.Contend(t, lockers, "contended")
					takeTurns(t, lockers)
				})
			}
		})
	}
}

// takeTurns has many who compete for one lock, holding it for a short time, with
// renewals. One at a time has it.
func takeTurns(t *testing.T, lockers []*pglocker.Locker) {
	t.Helper()

	const (
		tasks = 6
		turns = 5
	)

	var (
		inside sync.Mutex
		last   int64
		all    sync.WaitGroup
	)

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	for i := range tasks {
		all.Go(func() {
			for turn := 0; turn < turns; {
				err := lockers[i%len(lockers)].Do(ctx, "turns", 10*time.Second, time.Millisecond, func(ctx context.Context) error {
					if !inside.TryLock() {
						return errors.New("two hold the lock")
					}
					defer inside.Unlock()

					lock, _ := pglocker.FromContext(ctx)
					if lock.Token() <= last {
						return fmt.Errorf("token %d after %d", lock.Token(), last)
					}

					last = lock.Token()

					time.Sleep(3 * time.Millisecond) // some renewals long

					return context.Cause(ctx)
				})

				switch {
				case err == nil:
					turn++
				case !errors.Is(err, pglocker.ErrAlreadyLocked):
					t.Error(err)

					return
				}
			}
		})
	}

	all.Wait()
}
