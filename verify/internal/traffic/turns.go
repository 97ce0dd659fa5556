package traffic

import (
	"context"
	"fmt"
	"time"
)

// In runs about waiting, all clients take turns with a few locks. A client always waits, none comes
// by when a lock has just become free, and no lease ends soon. So a wanted lock stays free until a
// waiter is woken, or looks by itself.
const (
	turnLocks = 16
	turnTTL   = 8 * time.Second
	// turn is about how long a lock is held. absence is how long its last holder stays away. All
	// others together hold it for longer than that, so that a client waits.
	turn    = time.Second
	absence = 2500 * time.Millisecond
)

func turns(n int) Spec { return Spec{fmt.Sprintf("turn-%d", n), turnTTL} }

// takeTurn waits for the lock, holds it, and then stays away from it.
func (w *worker) takeTurn(ctx context.Context, lock Spec) {
	w.waitFor(ctx, lock, endless, turn*4/5+w.upTo(turn*2/5))
	sleep(ctx, absence)
}
