package traffic

import (
	"context"
	"fmt"
	"time"
)

const (
	// SparedTTL is long enough for renewals on a busy machine. SparedTenure is long enough for a
	// lock to live on them.
	SparedTTL    = 2 * time.Second
	sparedTenure = 3 * SparedTTL
	// DoomedTTL is so long that a lease that can't be renewed is asked for again and again until
	// one of SparedTTL that was asked for with it would be lost.
	DoomedTTL = 2 * SparedTTL
)

// spared is a lock that its client alone uses, and that no fault is done to.
func spared(client string) Spec { return Spec{"spared-" + client, SparedTTL} }

const (
	// doomedPrefix is that of the locks that a fault may have refused. Each client uses doomedLocks of its own.
	doomedPrefix = "doomed-"
	// doomedLocks are so many that nearly every renewal of a spared lock goes with one of them, retries too.
	doomedLocks = 6
)

// DoomedLike is the pattern of their ids.
const DoomedLike = doomedPrefix + "%"

func doomed(client string, n int) Spec {
	return Spec{fmt.Sprintf("%s%s-%d", doomedPrefix, client, n), DoomedTTL}
}

// keepSpared holds a lock for several times as long as a lease lasts.
func (w *worker) keepSpared(ctx context.Context, lock Spec) {
	w.waitFor(ctx, lock, time.Second, sparedTenure)
}
