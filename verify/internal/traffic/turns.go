package traffic

import (
	"context"
	"fmt"
	"time"
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
)

func turns(n int) Spec { return Spec{fmt.Sprintf("turn-%d", n), turnTTL} }

// takeTurn waits for the lock, holds it for a while, and stays away from it.
func (w *worker) takeTurn(ctx context.Context, lock Spec) {
	w.waitFor(ctx, lock, endless, turn*4/5+w.upTo(turn*2/5))
	sleep(ctx, absence)
}
