package traffic

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Where requests arrive late, all clients briefly hold a few locks in turn, with long leases. A
// grant that no client knows of would keep such a lock from all of them.
const (
	longLocks    = 8
	longTTL      = 12 * time.Second
	briefTenure  = 20 * time.Millisecond
	briefAbsence = 60 * time.Millisecond
)

func long(n int) Spec { return Spec{fmt.Sprintf("long-%d", n), longTTL} }

// IsLong reports whether a lock is one of them.
func IsLong(id string) bool {
	return slices.ContainsFunc(longs(), func(lock Spec) bool { return lock.ID == id })
}

func longs() (all []Spec) {
	for n := range longLocks {
		all = append(all, long(n))
	}

	return all
}

// takeBriefly takes a lock, and unlocks it at once. Unlike the release of a lease by hand, that
// goes on until it is done.
func (w *worker) takeBriefly(ctx context.Context, lock Spec) {
	w.waitFor(ctx, lock, time.Second, w.upTo(briefTenure))
}
