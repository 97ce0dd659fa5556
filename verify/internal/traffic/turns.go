package traffic

import (
	"context"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// Where it is about waiting, all clients take turns with a few locks: somebody always waits,
// nobody comes by when a lock has just become free, and no lease ends soon. So a lock that
// is free and wanted stays so until somebody is woken, or looks by himself.
const (
	turnLocks = 16
	turnTTL   = 8 * time.Second
	// turn is how long a lock is held, more or less, and absence how long its last holder
	// stays away. All of them together hold it for longer than that, so that somebody waits.
	turn    = time.Second
	absence = 2500 * time.Millisecond
	// turnPatience is beyond any run: only the end of a run ends a wait.
	turnPatience = time.Hour
)

func turns(n int) Spec { return Spec{fmt.Sprintf("turn-%d", n), turnTTL} }

// takeTurn waits for the lock, holds it for a while, and stays away from it.
func (w *worker) takeTurn(ctx context.Context, lock Spec) {
	asking, cancel := context.WithTimeout(ctx, turnPatience)
	defer cancel()

	e := w.rec.Invoke(history.Event{Kind: history.Lock, Lock: lock.ID, TTL: int64(lock.TTL), Waits: true})
	lk, err := w.locker.Lock(asking, lock.ID, lock.TTL)
	e.At = 0

	if err != nil {
		w.rec.Return(outcome(e, err))

		return
	}

	w.rec.Return(held(e, lk))
	context.AfterFunc(lk.Context(), func() { w.lost(lk, context.Cause(lk.Context())) })

	sleep(ctx, turn*4/5+w.upTo(turn*2/5))
	w.unlock(ctx, lk, e)
	sleep(ctx, absence)
}
