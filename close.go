package pglocker

import (
	"context"
	"fmt"
	"sync"
)

// Close ends the Locker:
//
//   - It cancels the contexts of all locks with cause [ErrClosed].
//   - It unlocks the locks that [Locker.Lock] and [Locker.TryLock] have taken, and those of recipes.
//   - Calls that wait for a lock, and all later calls, get ErrClosed.
//   - It waits until the functions of [Locker.Do] and of recipes have returned, their locks are released, and every
//     goroutine of the Locker has ended. If a driver doesn't return from a statement, Close leaves it behind
//     after five seconds, and tells [Config.Logger].
//
// It leaves locks taken by [Locker.AcquireLock] as they are.
//
// If ctx ends first, Close returns its error, and the rest goes on in the background. A second call of Close
// waits for it. A function that Do runs must not call Close: it would wait for itself.
func (l *Locker) Close(ctx context.Context) error {
	l.desk.Close(ErrClosed)

	done := make(chan struct{})

	// If ctx ends first, it ends with the last of what it waits for.
	go func() {
		defer close(done)

		l.held.close(context.WithoutCancel(ctx))
		l.desk.Wait()
		l.listener.Wait()
		l.renewer.Wait()
		l.desk.Beside.GiveUpOpening()

		if left := l.store.Wait(); left > 0 {
			l.cfg.Logger.Warn("pglocker: closed, but the driver has not returned", "statements", left)
		}
	}()

	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("pglocker: closing: %w", ctx.Err())
	}
}

// heldLocks are the locks that are held through a Locker.
type heldLocks struct {
	// mu guards what follows.
	mu sync.Mutex
	// groups has for each whether Close unlocks it. If not, the function that runs under it is waited for.
	groups map[*group]bool
	closed bool
}

func (h *heldLocks) add(g *group) bool {
	h.mu.Lock()
	defer h.mu.Unlock()

	if h.closed {
		return false
	}

	h.groups[g] = true

	return true
}

// run adds locks under which a function runs.
func (h *heldLocks) run(g *group) {
	h.mu.Lock()
	defer h.mu.Unlock()

	h.groups[g] = false
}

// find returns the lock that is held under a token, nil if there is none.
func (h *heldLocks) find(lockID string, token int64) *Lock {
	h.mu.Lock()
	defer h.mu.Unlock()

	for g := range h.groups {
		g.mu.Lock()
		locks := g.locks
		g.mu.Unlock()

		for _, lk := range locks {
			if lk.lease.LockID == lockID && lk.lease.Generation == token {
				return lk
			}
		}
	}

	return nil
}

func (h *heldLocks) remove(g *group) {
	h.mu.Lock()
	defer h.mu.Unlock()

	delete(h.groups, g)
}

// unlockersAtClose is as many as go in one statement.
const unlockersAtClose = 512

// close cancels the contexts of all locks and unlocks them. It returns when all are unlocked, also those that
// their holders unlock at the same time.
func (h *heldLocks) close(ctx context.Context) {
	h.mu.Lock()
	h.closed = true
	groups := make(chan *group, len(h.groups))

	for g, unlocks := range h.groups {
		if unlocks {
			g.cancel(ErrClosed)
			groups <- g
		}
	}
	h.mu.Unlock()

	close(groups)

	var unlockers sync.WaitGroup

	for range min(unlockersAtClose, len(groups)) {
		unlockers.Go(func() {
			for g := range groups {
				_ = g.unlock(ctx) // it is free now, or will be when its lease ends
				<-g.freed
			}
		})
	}

	unlockers.Wait()
}
