package faulttest

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// A request may reach the server after the caller has given its attempt up, asked again,
// and has had the lock and released it: a network or a pooler has kept it.

// TestStrayGrant: an attempt reaches the server late, when another attempt was granted the lock
// or the caller has given up. It is granted the lock for nobody. That grant is returned within
// seconds.
func TestStrayGrant(t *testing.T) {
	t.Parallel()

	const (
		lockID = "stray"
		// firstLooks is how often a grant is looked for before it is expected to come never.
		firstLooks = 6
		ttl        = time.Minute
	)

	type setup struct {
		keeper  *keeper
		locker  *pglocker.Locker
		watcher *contract.Watcher
		direct  *sql.DB
	}

	// lost has the next request kept, and its connection broken.
	lost := func(t *testing.T, s setup) (kept <-chan keptRequest) {
		t.Helper()

		s.keeper.keepNext(lockID)

		hungUp := make(chan keptRequest, 1)

		go func() {
			select {
			case request := <-s.keeper.kept:
				request.hangUp()

				hungUp <- request
			case <-t.Context().Done():
			}
		}()

		return hungUp
	}

	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		for name, keep := range map[string]func(t *testing.T, s setup) keptRequest{
			"of a lease that was released": func(t *testing.T, s setup) keptRequest {
				t.Helper()

				kept := lost(t, s)
				status, err := s.locker.AcquireLock(t.Context(), lockID, ttl)
				contract.Must(t, err)
				contract.Must(t, s.locker.ReleaseLock(t.Context(), status))

				return contract.Receive(t, "a request is kept", kept)
			},
			"of a lock that was unlocked": func(t *testing.T, s setup) keptRequest {
				t.Helper()

				kept := lost(t, s)
				lock, err := s.locker.TryLock(t.Context(), lockID, ttl)
				contract.Must(t, err)
				contract.Must(t, lock.Unlock(t.Context()))

				return contract.Receive(t, "a request is kept", kept)
			},
			"of one who waited": func(t *testing.T, s setup) keptRequest {
				t.Helper()
				contract.Exec(t, s.direct, `UPDATE pglocker.lock_statuses
					SET generation = generation + 1, expires_at = clock_timestamp() + interval '2 seconds'`)

				locked := make(chan error, 1)

				go func() {
					lock, err := s.locker.Lock(t.Context(), lockID, ttl)
					if err == nil {
						err = lock.Unlock(t.Context())
					}

					locked <- err
				}()

				contract.Receive(t, "somebody waits", s.watcher.InLine())
				request := contract.Receive(t, "a request is kept", lost(t, s))
				contract.Must(t, contract.Receive(t, "Lock returns", locked))

				return request
			},
			"of one who left long ago": func(t *testing.T, s setup) keptRequest {
				t.Helper()
				s.keeper.keepNext(lockID)

				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()

				done := make(chan error, 1)

				go func() {
					_, err := s.locker.AcquireLock(ctx, lockID, ttl)
					done <- err
				}()

				request := contract.Receive(t, "a request is kept", s.keeper.kept)

				cancel()

				if err := contract.Receive(t, "AcquireLock returns", done); !errors.Is(err, pglocker.ErrUnknownOutcome) {
					t.Errorf("%v, want ErrUnknownOutcome", err)
				}

				request.hangUp()

				// The first looks find nothing, and those after them are seconds apart.
				contract.Await(t, "it was looked for in vain", func() bool { return s.keeper.requestsSince() >= firstLooks })

				return request
			},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()

				databaseURL := contract.NewDatabase(t)
				direct := contract.Open(t, "pgx", databaseURL)
				k, through := newKeeper(t, databaseURL)

				w := contract.NewWatcher()
				locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, driver, through), &pglocker.Config{Observer: w})
				contract.Must(t, err)
				t.Cleanup(func() { contract.CloseLocker(t, locker) })

				// The statement is prepared on a connection by then, and goes out in one piece.
				status, err := locker.AcquireLock(t.Context(), lockID, ttl)
				contract.Must(t, err)
				contract.Must(t, locker.ReleaseLock(t.Context(), status))

				request := keep(t, setup{k, locker, w, direct})

				row := func() (generation int64, held bool) {
					contract.Must(t, direct.QueryRowContext(t.Context(), `SELECT generation, expires_at > clock_timestamp()
						FROM pglocker.lock_statuses WHERE lock_id = $1`, lockID).Scan(&generation, &held))

					return generation, held
				}

				before, held := row()
				if held {
					t.Fatal("the lock is held before the stray comes")
				}

				request.deliver()

				delivered := time.Now()

				contract.Await(t, "the stray is granted the lock", func() bool {
					generation, _ := row()

					return generation > before
				})
				contract.Await(t, "the lock is free again", func() bool {
					_, held := row()

					return !held
				})

				if took := time.Since(delivered); took > 15*time.Second {
					t.Errorf("it took %s", took)
				}
			})
		}
	})
}
