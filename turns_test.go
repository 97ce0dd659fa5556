package pglocker_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestContextEndsFirst: when the next holder has the lock, the context of the one
// before has ended.
func TestContextEndsFirst(t *testing.T) {
	t.Parallel()

	locker := newLocker(t, "pgx", newDatabase(t))

	var (
		ctx      = t.Context()
		waiters  sync.WaitGroup
		previous atomic.Pointer[pglocker.Lock]
	)

	for range 4 {
		waiters.Go(func() {
			for range 50 {
				lock, err := locker.Lock(ctx, "a", time.Minute)
				if err != nil {
					t.Error(err)

					return
				}

				if before := previous.Swap(lock); before != nil && before.Context().Err() == nil {
					t.Error("two holders believe")
				}

				if err := lock.Unlock(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}

	waiters.Wait()
}

// TestTurns: a process whose waiters hand the lock over among themselves lets
// others have it, also those that can only poll.
func TestTurns(t *testing.T) {
	t.Parallel()

	for _, setup := range []struct {
		name, driver string
		columns      string
	}{
		{"listening", "pgx", ""},
		{"polling", "postgres", ""},
		{"three columns", "pgx", contract.ThreeColumns},
	} {
		t.Run(setup.name, func(t *testing.T) {
			t.Parallel()

			var (
				url     = newDatabase(t)
				config  = &pglocker.Config{Scheme: pglocker.PublicScheme}
				direct  = contract.Open(t, "pgx", url)
				ctx     = t.Context()
				greedy  sync.WaitGroup
				granted atomic.Int64
			)

			if setup.columns == "" {
				must(t, pglocker.MigrateDB(ctx, direct, config))
			} else {
				contract.Exec(t, direct, "CREATE TABLE public.lock_statuses ("+setup.columns+")")
			}

			open := func() *pglocker.Locker {
				locker, err := pglocker.New(contract.Open(t, setup.driver, url), config)
				must(t, err)

				return locker
			}

			many, one := open(), open()
			working, stop := context.WithCancel(ctx)

			defer greedy.Wait()
			defer stop()

			for range 4 {
				greedy.Go(func() {
					for working.Err() == nil {
						lock, err := many.Lock(working, "a", time.Minute)
						if err != nil {
							return
						}

						granted.Add(1)

						if err := lock.Unlock(ctx); err != nil {
							t.Error(err)
						}
					}
				})
			}

			contract.Await(t, "the lock goes round", func() bool { return granted.Load() > 50 })

			for range 3 {
				began := time.Now()

				lock, err := one.Lock(ctx, "a", time.Minute)
				must(t, err)

				// A turn of the others is 400 ms at most and then lies free for as long;
				// not every look meets that.
				if waited := time.Since(began); waited > 10*time.Second {
					t.Errorf("the other process waited %s for its turn", waited)
				}

				must(t, lock.Unlock(ctx))
			}
		})
	}
}

// TestUnlocksShareConnections: many unlocks at once don't each open a connection
// because the pool is busy, with other unlocks above all.
func TestUnlocksShareConnections(t *testing.T) {
	t.Parallel()

	config, err := pgx.ParseConfig(newDatabase(t))
	must(t, err)

	const (
		locks = 300
		pool  = 4
	)

	var (
		ctx       = t.Context()
		connected atomic.Int64
		db        = stdlib.OpenDB(*config, stdlib.OptionBeforeConnect(func(context.Context, *pgx.ConnConfig) error {
			connected.Add(1)

			return nil
		}))
		locker = newLockerOver(t, db)
		held   []*pglocker.Lock
	)

	db.SetMaxOpenConns(pool)
	db.SetMaxIdleConns(pool)

	for i := range locks {
		lock, err := locker.TryLock(ctx, fmt.Sprint(i), time.Minute)
		must(t, err)

		held = append(held, lock)
	}

	var unlocks sync.WaitGroup

	for _, lock := range held {
		unlocks.Go(func() {
			if err := lock.Unlock(ctx); err != nil {
				t.Error(err)
			}
		})
	}

	unlocks.Wait()

	// The spare connection is closed when nobody uses it, and may be opened again.
	if n := connected.Load(); n > locks/5 {
		t.Errorf("%d connections were opened for %d unlocks, want few", n, locks)
	}
}

// newLockerOver returns a locker over a handle, which is closed when the test ends.
func newLockerOver(t *testing.T, db *sql.DB) *pglocker.Locker {
	t.Helper()
	t.Cleanup(func() { must(t, db.Close()) })

	locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
	must(t, err)

	return locker
}
