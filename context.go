package pglocker

import (
	"context"
	"fmt"
	"time"
)

type lockKey struct{}

// FromContext returns the lock of a context: that of a function that [Locker.Do] runs, a [Lock.Context], or
// one made from these. The result is false if there is none.
func FromContext(ctx context.Context) (*Lock, bool) {
	lock, ok := ctx.Value(lockKey{}).(*Lock)

	return lock, ok
}

// Token returns the fencing token of the lock that [FromContext] finds in ctx. ok is false if there is none.
func Token(ctx context.Context) (token int64, ok bool) {
	lock, ok := FromContext(ctx)
	if !ok {
		return 0, false
	}

	return lock.Token(), true
}

// heldUnder is the error of a call that would wait for a lock of l that is held under its own context; nil if
// there is no such lock.
func heldUnder(ctx context.Context, l *Locker, lockID string) error {
	for lk, _ := FromContext(ctx); lk != nil; lk = lk.outer {
		// Another Locker's locks are the same if its handle and its table are.
		same := lk.locker == l || lk.locker.db == l.db && lk.locker.cfg.table() == l.cfg.table()
		if same && lk.lease.LockID == lockID && lk.over() == nil {
			lk.mu.Lock()
			status, ago := lk.status, time.Since(lk.statusAt)
			lk.mu.Unlock()

			held := &HeldError{LockID: lockID, Owner: status.Owner, Generation: status.Generation, Remaining: max(lk.ttl-ago, 0)}

			return fmt.Errorf("%w; it is held under the context of this call, which would wait for itself", held)
		}
	}

	return nil
}
