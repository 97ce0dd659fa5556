package pglocker

import (
	"context"
	"sync"
)

// heldLocks are the locks of a Locker that nobody but Close would unlock for
// their holders.
type heldLocks struct {
	// mu guards what follows.
	mu     sync.Mutex
	locks  map[*Lock]struct{}
	closed bool
}

// add is false once the Locker is closed.
func (h *heldLocks) add(lk *Lock) bool {
	h.mu.Lock()
	defer h.mu.Unlock()

	if h.closed {
		return false
	}

	if h.locks == nil {
		h.locks = make(map[*Lock]struct{})
	}

	h.locks[lk] = struct{}{}

	return true
}

func (h *heldLocks) remove(lk *Lock) {
	h.mu.Lock()
	defer h.mu.Unlock()

	delete(h.locks, lk)
}

// unlockersAtClose bounds how many locks are unlocked at once: as many as go together in
// one statement.
const unlockersAtClose = 512

// close cancels the contexts of all locks and unlocks them, and returns when all are
// unlocked, also those that their holders unlock at the same time.
func (h *heldLocks) close(ctx context.Context) {
	h.mu.Lock()
	h.closed = true
	locks := make(chan *Lock, len(h.locks))

	for lk := range h.locks {
		lk.cancel(ErrClosed)
		locks <- lk
	}
	h.mu.Unlock()

	close(locks)

	var unlockers sync.WaitGroup

	for range min(unlockersAtClose, len(locks)) {
		unlockers.Go(func() {
			for lk := range locks {
				_ = lk.Unlock(ctx) // it is free now, or will be when its lease ends
				<-lk.freed
			}
		})
	}

	unlockers.Wait()
}
