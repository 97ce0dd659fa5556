package traffic

import (
	"context"
	"time"
)

const (
	// SparedTTL is long enough for renewals on a busy machine. SparedTenure is long enough for a
	// lock to live on them.
	SparedTTL    = 2 * time.Second
	sparedTenure = 3 * SparedTTL
)

// spared is a lock that its client alone uses, and that no fault is done to.
func spared(client string) Spec { return Spec{"spared-" + client, SparedTTL} }

// keepSpared holds a lock for several times as long as a lease lasts.
func (w *worker) keepSpared(ctx context.Context, lock Spec) {
	w.waitFor(ctx, lock, time.Second, sparedTenure)
}
