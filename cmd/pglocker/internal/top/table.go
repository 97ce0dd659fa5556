// Package top is the live view of `pglocker top`: which locks are held and waited for, who leads the elections,
// how full the semaphores are.
//
// A [Looker] reads the table into a [Snapshot]. That part knows no terminal, and is plain arithmetic on
// [pglocker.LockStatus]. [Run] draws snapshots on a terminal, and [Print] writes them as text.
//
// # What a look costs
//
// A table may have ten million rows. A look at it then takes seconds, so the next one begins no sooner than ten
// times that later, and the view says how old the data is. A look keeps no more than [Query.Limit] rows, and counts
// the others.
package top

import (
	"context"
	"iter"
	"time"

	"github.com/ismurov/pglocker"
)

// Table is what is looked at. But for Clock its methods are those of a [*pglocker.Locker].
type Table interface {
	// Clock is the time by the server's clock. It answers on a standby, too.
	Clock(ctx context.Context) (now time.Time, standby bool, err error)
	HasOwners(ctx context.Context) (bool, error)
	Locks(ctx context.Context, filter pglocker.LocksFilter) iter.Seq2[pglocker.LockStatus, error]
	History(ctx context.Context, lockID string, since time.Time) iter.Seq2[pglocker.Event, error]
	ForceRelease(ctx context.Context, lockID string, token int64, reason string) error
}
