package pglocker

import (
	"context"
	"fmt"
	"time"
)

// Prune deletes the rows of locks and elections that have been free for idleFor or longer, by the database's
// clock, and have no waiter. Rows of semaphores and read-write locks stay. A pruned lock is as good as
// before: the next request creates it again. removed is how many rows were deleted, also beside an error.
//
// Tokens go on growing. The row "pglocker:watermark" remembers the largest token that was pruned, and a lock
// that is created continues above it. Don't delete that row. Old tokens stay valid for comparison; an old
// [LockStatus] of a pruned lock gets [ErrLockNotFound], or [ErrWrongGeneration] when the lock exists again. Choose
// an idleFor longer than any process may be paused: a day, for example.
//
// Prune works in batches of 1,000 rows, each a transaction of a few milliseconds. It passes over locked rows, and
// over rows that a foreign key of the application refers to. Rows with ON DELETE CASCADE behind them go along.
// Several processes may prune at once.
//
// The first Prune of a table makes the watermark. It waits for the transactions that are open in the database at
// that moment, as CREATE INDEX CONCURRENTLY does, such as a dump, until ctx ends.
//
// When ctx ends, Prune returns its error, and what was removed until then. Run it again to go on. Errors:
//
//   - [ErrInvalidIdle]: idleFor is negative, or above [MaxTTL].
//   - [ErrPermissionDenied]: the role lacks DELETE on the table. Nothing else needs that privilege. Or the table
//     has row-level security, which may hide the watermark from a role.
//   - [ErrClosed]; the others of the database's state; and what the driver reports.
func (l *Locker) Prune(ctx context.Context, idleFor time.Duration) (removed int64, err error) {
	if idleFor < 0 || idleFor > MaxTTL {
		return 0, fmt.Errorf("%w: %s", ErrInvalidIdle, idleFor)
	}

	end, err := l.desk.Begin()
	if err != nil {
		return 0, err
	}
	defer end()

	ctx, stop := l.desk.UntilClosed(ctx)
	defer stop()

	removed, err = l.store.Prune(ctx, idleFor)
	if closed := l.desk.Context(); err != nil && closed.Err() != nil {
		err = fmt.Errorf("%w: %w", context.Cause(closed), err)
	}

	if err != nil {
		err = tidy(fmt.Errorf("%w (prune, %d rows removed)", err, removed))
	}

	return removed, err
}
