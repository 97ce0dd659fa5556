package pglocker

import (
	"context"
	"fmt"
	"time"
)

type lockKey struct{}

// FromContext returns the lock of a context: that of the function that [Locker.Do] runs, a
// [Lock.Context], or one that was made from these. It is false if there is none.
func FromContext(ctx context.Context) (*Lock, bool) {
	lock, ok := ctx.Value(lockKey{}).(*Lock)

	return lock, ok
}

// Token returns the fencing token ([Lock.Token]) of the lock that [FromContext] finds. It
// is false if there is none.
func Token(ctx context.Context) (token int64, ok bool) {
	lock, ok := FromContext(ctx)
	if !ok {
		return 0, false
	}

	return lock.Token(), true
}

// Context returns the lock's context. It is cancelled
//
//   - with a cause that matches [ErrLockLost], the moment the lock can't be trusted any
//     more;
//   - with cause [ErrClosed], when the Locker is closed;
//   - when the lock is unlocked.
//
// Inside [Locker.Do] it also ends with the context given to Do. The lock is held even then,
// until Do's function returns.
func (lk *Lock) Context() context.Context { return lk.ctx }

// Token returns the fencing token. It is larger than those of all earlier holders of this
// lock, and stays the same as long as this lock is held. A resource that remembers the
// largest token it has seen can refuse a holder that has lost the lock.
func (lk *Lock) Token() int64 { return lk.lease.Generation }

// Status returns the lock as the last acknowledged grant or renewal left it.
func (lk *Lock) Status() LockStatus {
	lk.mu.Lock()
	defer lk.mu.Unlock()

	return lk.status
}

// over is why the lock is no longer held as far as this process knows, nil if it is.
func (lk *Lock) over() error {
	lk.mu.Lock()
	defer lk.mu.Unlock()

	switch {
	case lk.lost != nil:
		return lk.lost
	case lk.unlocked:
		return fmt.Errorf("%w: %q was unlocked", ErrLockLost, lk.lease.LockID)
	}

	return nil
}

// heldUnder is the error of a call that would wait for a lock of l that is held under its
// own context; nil if no such lock is held.
func heldUnder(ctx context.Context, l *Locker, lockID string) error {
	for lk, _ := FromContext(ctx); lk != nil; lk = lk.outer {
		if lk.lease.LockID == lockID && lk.locker.sameTable(l) && lk.over() == nil {
			return fmt.Errorf("%w; it is held under the context of this call, which would wait for itself", lk.heldError())
		}
	}

	return nil
}

// heldError says that this lock is held, by what was last acknowledged.
func (lk *Lock) heldError() *HeldError {
	lk.mu.Lock()
	defer lk.mu.Unlock()

	return &HeldError{
		LockID:     lk.status.LockID,
		Owner:      lk.status.Owner,
		Generation: lk.status.Generation,
		Remaining:  max(lk.ttl-time.Since(lk.statusAt), 0),
	}
}

// sameTable reports whether another Locker's locks are the same, as far as can be told
// without asking.
func (l *Locker) sameTable(other *Locker) bool {
	return l == other || l.db == other.db && l.cfg.table() == other.cfg.table()
}
