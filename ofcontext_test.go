package pglocker_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestLockOfContext: Guard and Token go by the lock of the context that they are given, the
// innermost one, and say so where there is none.
func TestLockOfContext(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = time.Minute

		var (
			ctx    = t.Context()
			db     = contract.Open(t, driver, newDatabase(t))
			locker = newLockerOn(t, db)
		)

		guard := func(ctx context.Context) error {
			tx, err := db.BeginTx(t.Context(), nil)
			must(t, err)

			defer func() { must(t, tx.Rollback()) }()

			return pglocker.Guard(ctx, tx)
		}

		if err := guard(ctx); !errors.Is(err, pglocker.ErrNoLock) {
			t.Errorf("Guard without a lock: %v, want ErrNoLock", err)
		}

		if token, ok := pglocker.Token(ctx); ok || token != 0 {
			t.Errorf("Token without a lock: %d, %t", token, ok)
		}

		must(t, locker.Do(ctx, "a", ttl, ttl/2, func(ctx context.Context) error {
			lock, _ := pglocker.FromContext(ctx)

			if token, ok := pglocker.Token(ctx); !ok || token != lock.Token() {
				t.Errorf("Token: %d, %t, want %d", token, ok, lock.Token())
			}

			must(t, guard(ctx))

			inner, err := locker.TryLock(ctx, "b", ttl)
			must(t, err)

			if token, ok := pglocker.Token(inner.Context()); !ok || token != inner.Token() {
				t.Errorf("Token under the inner lock: %d, %t, want %d", token, ok, inner.Token())
			}

			must(t, inner.Unlock(ctx))

			if err := guard(inner.Context()); !errors.Is(err, pglocker.ErrLockLost) {
				t.Errorf("Guard of a lock that was unlocked: %v, want ErrLockLost", err)
			}

			return nil
		}))
	})
}
