package pglocker

import (
	"context"
	"fmt"
	"slices"
	"time"
)

type groupKey struct{}

// groupOf is what is held under ctx, nil if nothing is.
func groupOf(ctx context.Context) *group {
	g, _ := ctx.Value(groupKey{}).(*group)

	return g
}

// FromContext returns the lock of a context: that of a function that [Locker.Do] runs, a [Lock.Context], or
// one made from these. The result is false if there is none, and if it is that of a
// [MultiLock], a [Permit] or an [Access].
func FromContext(ctx context.Context) (*Lock, bool) {
	g := groupOf(ctx)
	if g == nil || g.shown == nil {
		return nil, false
	}

	return g.shown, true
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
func heldUnder(ctx context.Context, l *Locker, lockIDs ...string) error {
	for g := groupOf(ctx); g != nil; g = g.outer {
		if !g.sharesTable(l) || g.over() != nil {
			continue
		}

		for _, lk := range g.locks {
			if slices.Contains(lockIDs, lk.lease.LockID) {
				return fmt.Errorf("%w; it is held under the context of this call, which would wait for itself", lk.heldError())
			}
		}
	}

	return nil
}

// sharesTable reports whether the group's locks are also l's: the handle and the table are the same.
func (g *group) sharesTable(l *Locker) bool {
	return g.locker == l || g.locker.source == l.source && g.locker.cfg.table() == l.cfg.table()
}

// heldError is the error of a lock that is held by this one.
func (lk *Lock) heldError() error {
	lk.group.mu.Lock()
	defer lk.group.mu.Unlock()

	return &HeldError{
		LockID: lk.lease.LockID, Owner: lk.status.Owner, Generation: lk.status.Generation,
		Remaining: max(lk.ttl-time.Since(lk.statusAt), 0),
	}
}
