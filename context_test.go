package pglocker_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestWaitForItself: a call under a lock that would wait for the same lock fails at once, whatever
// other locks were taken in between. It may wait once the lock is free.
func TestWaitForItself(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = time.Minute

		var (
			ctx    = t.Context()
			url    = contract.NewDatabase(t)
			db     = contract.Open(t, driver, url)
			locker = contract.NewLockerOn(t, db)
			beside = contract.NewLockerOn(t, db)
			nobody = func(context.Context) error { return errors.New("it was granted the lock") }
		)

		calls := map[string]func(ctx context.Context, l *pglocker.Locker) error{
			"Lock": func(ctx context.Context, l *pglocker.Locker) error {
				_, err := l.Lock(ctx, "a", ttl)

				return err
			},
			"TryLock WithWait": func(ctx context.Context, l *pglocker.Locker) error {
				_, err := l.TryLock(ctx, "a", ttl, pglocker.WithWait(time.Hour))

				return err
			},
			"Do WithWait": func(ctx context.Context, l *pglocker.Locker) error {
				return l.Do(ctx, "a", ttl, ttl/2, nobody, pglocker.WithWait(pglocker.Forever))
			},
		}

		fails := func(call string, within time.Duration, err error, token int64) {
			var held *pglocker.HeldError
			if !errors.As(err, &held) || !errors.Is(err, pglocker.ErrAlreadyLocked) || held.Generation != token ||
				held.Remaining <= 0 || held.Remaining > ttl {
				t.Errorf("%s: %v, want the lock held under token %d", call, err, token)
			}

			if err == nil || !strings.Contains(err.Error(), "wait for itself") {
				t.Errorf("%s: %v, want an error that says why", call, err)
			}

			if within > 4*time.Second {
				t.Errorf("%s took %s", call, within)
			}
		}

		under := func(ctx context.Context, token int64) {
			for call, lock := range calls {
				for _, l := range []*pglocker.Locker{locker, beside} {
					bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
					began := time.Now()
					err := lock(bounded, l)

					fails(call, time.Since(began), err, token)
					cancel()
				}
			}

			// A call that doesn't wait is told that it is held, and nothing else.
			_, err := locker.TryLock(ctx, "a", ttl)
			if !errors.Is(err, pglocker.ErrAlreadyLocked) || strings.Contains(err.Error(), "itself") {
				t.Errorf("TryLock: %v, want ErrAlreadyLocked", err)
			}
		}

		contract.Must(t, locker.Do(ctx, "a", ttl, ttl/2, func(ctx context.Context) error {
			token, _ := pglocker.Token(ctx)
			under(ctx, token)

			return beside.Do(ctx, "b", ttl, ttl/2, func(ctx context.Context) error {
				under(ctx, token)

				return nil
			})
		}))

		// A lock that is over is in nobody's way.
		lock, err := locker.Lock(ctx, "a", ttl)
		contract.Must(t, err)
		contract.Must(t, lock.Unlock(ctx))

		again, err := locker.Lock(context.WithoutCancel(lock.Context()), "a", ttl)
		contract.Must(t, err)
		contract.Must(t, again.Unlock(ctx))

		// A lock of that name on another table is another.
		elsewhere, err := pglocker.NewWithMigrateDB(ctx, db, &pglocker.Config{Table: "other"})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, elsewhere) })

		contract.Must(t, locker.Do(ctx, "a", ttl, ttl/2, func(ctx context.Context) error {
			lock, err := elsewhere.Lock(ctx, "a", ttl)
			if err != nil {
				return err
			}

			return lock.Unlock(ctx)
		}))
	})
}

// TestWaitForItselfOverAPool: Lockers on a pool, and on handles over it, know that their locks are the same.
func TestWaitForItselfOverAPool(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	pool, err := pgxpool.New(t.Context(), url)
	contract.Must(t, err)
	t.Cleanup(pool.Close)
	contract.Must(t, pglocker.MigrateDB(t.Context(), contract.Open(t, "pgx", url), &pglocker.Config{}))

	var lockers []*pglocker.Locker

	for range 2 {
		db := stdlib.OpenDBFromPool(pool)
		t.Cleanup(func() { contract.Must(t, db.Close()) })

		onPool, err := pglocker.NewPool(pool, &pglocker.Config{})
		contract.Must(t, err)

		onHandle, err := pglocker.New(db, &pglocker.Config{})
		contract.Must(t, err)

		lockers = append(lockers, onPool, onHandle)
	}

	for _, l := range lockers {
		t.Cleanup(func() { contract.CloseLocker(t, l) })
	}

	for i, outer := range lockers {
		lock, err := outer.TryLock(t.Context(), "a", time.Minute)
		contract.Must(t, err)

		for k, inner := range lockers {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(lock.Context()), 5*time.Second)

			if _, err := inner.Lock(ctx, "a", time.Minute); err == nil || !strings.Contains(err.Error(), "wait for itself") {
				t.Errorf("Locker %d under a lock of %d: %v, want an error that says that it would wait for itself", k, i, err)
			}

			cancel()
		}

		contract.Must(t, lock.Unlock(t.Context()))
	}
}

// TestLockOfContext: Guard and Token go by the lock of the context that they are given, the
// innermost one, and say so where there is none.
func TestLockOfContext(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = time.Minute

		var (
			ctx    = t.Context()
			db     = contract.Open(t, driver, contract.NewDatabase(t))
			locker = contract.NewLockerOn(t, db)
		)

		guard := func(ctx context.Context) error {
			tx, err := db.BeginTx(t.Context(), nil)
			contract.Must(t, err)

			defer func() { contract.Must(t, tx.Rollback()) }()

			return pglocker.Guard(ctx, tx)
		}

		if err := guard(ctx); !errors.Is(err, pglocker.ErrNoLock) {
			t.Errorf("Guard without a lock: %v, want ErrNoLock", err)
		}

		if token, ok := pglocker.Token(ctx); ok || token != 0 {
			t.Errorf("Token without a lock: %d, %t", token, ok)
		}

		contract.Must(t, locker.Do(ctx, "a", ttl, ttl/2, func(ctx context.Context) error {
			lock, _ := pglocker.FromContext(ctx)

			if token, ok := pglocker.Token(ctx); !ok || token != lock.Token() {
				t.Errorf("Token: %d, %t, want %d", token, ok, lock.Token())
			}

			contract.Must(t, guard(ctx))

			inner, err := locker.TryLock(ctx, "b", ttl)
			contract.Must(t, err)

			if token, ok := pglocker.Token(inner.Context()); !ok || token != inner.Token() {
				t.Errorf("Token under the inner lock: %d, %t, want %d", token, ok, inner.Token())
			}

			contract.Must(t, inner.Unlock(ctx))

			if err := guard(inner.Context()); !errors.Is(err, pglocker.ErrLockLost) {
				t.Errorf("Guard of a lock that was unlocked: %v, want ErrLockLost", err)
			}

			return nil
		}))
	})
}
