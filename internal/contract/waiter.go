package contract

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// watchedLocker returns another locker of the setup, with an observer.
func (e *env) watchedLocker(t *testing.T, observer pglocker.Observer) *pglocker.Locker {
	t.Helper()

	cfg := e.config()
	cfg.Observer = observer

	return e.open(t, cfg)
}

// tryLock takes a free lock for a minute.
func tryLock(t *testing.T, locker *pglocker.Locker, id string, opts ...pglocker.LockOption) *pglocker.Lock {
	t.Helper()

	lock, err := locker.TryLock(t.Context(), id, minute, opts...)
	if err != nil {
		t.Fatalf("TryLock: %v", err)
	}

	return lock
}

func unlock(t *testing.T, lock *pglocker.Lock) {
	t.Helper()

	if err := lock.Unlock(withinContext(t)); err != nil {
		t.Errorf("Unlock: %v", err)
	}
}

func unlockLost(t *testing.T, lock *pglocker.Lock) {
	t.Helper()

	if err := lock.Unlock(withinContext(t)); !errors.Is(err, pglocker.ErrLockLost) || errors.Is(err, pglocker.ErrAlreadyUnlocked) {
		t.Errorf("Unlock of a lock that was lost: %v, want ErrLockLost alone", err)
	}
}

// isHeldBy fails the test unless err says that the given lock is held.
func isHeldBy(t *testing.T, what string, err error, lock *pglocker.Lock) {
	t.Helper()

	var held *pglocker.HeldError
	if !errors.As(err, &held) || !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("%s: %v, want ErrAlreadyLocked, as a *HeldError", what, err)

		return
	}

	status := lock.Status()
	if held.LockID != status.LockID || held.Generation != lock.Token() || held.Owner != status.Owner ||
		held.Remaining <= 0 || held.Remaining > minute {
		t.Errorf("%s: %+v, want it to name %+v and the rest of its lease", what, held, status)
	}
}

func ended(t *testing.T) context.Context {
	t.Helper()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	return ctx
}

type asked struct {
	locks chan *pglocker.Lock
	errs  chan error
}

// lockAsync calls Lock, with a TTL of a minute, in a goroutine that ends with ctx.
func lockAsync(ctx context.Context, locker *pglocker.Locker, id string, opts ...pglocker.LockOption) asked {
	a := asked{make(chan *pglocker.Lock, 1), make(chan error, 1)}

	go func() {
		lock, err := locker.Lock(ctx, id, minute, opts...)
		if err != nil {
			a.errs <- err
		} else {
			a.locks <- lock
		}
	}()

	return a
}

func (a asked) get(t *testing.T) *pglocker.Lock {
	t.Helper()

	select {
	case lock := <-a.locks:
		return lock
	case err := <-a.errs:
		t.Fatalf("Lock: %v", err)
	case <-time.After(within):
		t.Fatalf("in vain for %s: Lock returns", within)
	}

	panic("unreachable")
}

func (a asked) fail(t *testing.T) error {
	t.Helper()

	select {
	case lock := <-a.locks:
		t.Fatalf("Lock was granted %+v, want an error", lock.Status())
	case err := <-a.errs:
		return err
	case <-time.After(within):
		t.Fatalf("in vain for %s: Lock returns", within)
	}

	panic("unreachable")
}

// grantedAt is when a lock with a TTL of a minute was granted, by the database's clock. It
// was not renewed since.
func grantedAt(lock *pglocker.Lock) time.Time { return lock.Status().ExpiresAt.Add(-minute) }
