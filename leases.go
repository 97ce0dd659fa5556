package pglocker

import (
	"context"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/line"
	"github.com/ismurov/pglocker/internal/store"
)

// CreateLock makes a free lock of generation 1, or returns the lock as it is if it is there. Other methods
// don't need it: the first grant creates a lock.
//
// Errors: [ErrInvalidLockID], [ErrReservedLockID], [ErrClosed], those of the database's state, and what the driver
// reports. If ctx ends, the lock may have been created or not.
func (l *Locker) CreateLock(ctx context.Context, lockID string) (*LockStatus, error) {
	end, err := l.begin(lockID)
	if err != nil {
		return nil, err
	}
	defer end()

	row, err := l.store.Create(ctx, lockID)

	return shown("create", lockID, row, err)
}

// GetLockStatus reads a lock. For information only: the lock may have changed when you read it, and a crash
// of the server may undo a release that it shows.
//
// Errors: [ErrLockNotFound], [ErrInvalidLockID], [ErrClosed], those of the database's state, and what the
// driver reports.
func (l *Locker) GetLockStatus(ctx context.Context, lockID string) (*LockStatus, error) {
	if err := validateLockID(lockID); err != nil {
		return nil, err
	}

	end, err := l.desk.Begin()
	if err != nil {
		return nil, err
	}
	defer end()

	res, err := l.store.Get(ctx, lockID)
	if err == nil && res.Verdict == store.NotFound {
		err = ErrLockNotFound
	}

	return shown("get", lockID, res.Row, err)
}

// AcquireLock takes a free lock for ttl, rounded up to microseconds. It doesn't wait for a holder. To hold the
// lock for longer, the caller calls [Locker.RefreshLock] or [Locker.StartRelocker]. Otherwise it must stop
// before the lease ends, and count ttl by its own clock from before the call. If a trigger on the table
// shortens leases, the status shows that.
//
// Errors:
//
//   - [ErrAlreadyLocked], as a [*HeldError], if another holds the lock.
//   - [ErrUnknownOutcome], if the reply was lost, or ctx ended while the request was under way. If the lock
//     was granted, the Locker releases it. On a table without the column owner, that lease expires instead.
//   - [ErrInvalidLockID], [ErrReservedLockID], [ErrInvalidTTL], [ErrClosed], those of the database's state, and what the driver
//     reports. The lock was not granted.
func (l *Locker) AcquireLock(ctx context.Context, lockID string, ttl time.Duration) (*LockStatus, error) {
	end, err := l.begin(lockID)
	if err != nil {
		return nil, err
	}
	defer end()

	if err := l.validateTTL(ttl); err != nil {
		return nil, err
	}

	res, err := l.line.Ask(ctx, line.Request{LockID: lockID, TTL: ttl})

	return shown("acquire", lockID, res.Row, err)
}

// RefreshLock takes the lock of the given status for another ttl, under a new generation, if it was not
// granted, refreshed or released since: a compare-and-swap by generation. It works on a lock whose lease has
// ended, and on one that was only created. The returned status replaces the old one, which is no longer valid.
//
// Errors:
//
//   - [ErrWrongGeneration], [ErrLockNotFound].
//   - [ErrUnknownOutcome], if the reply was lost, or ctx ended while the request was under way. The old lease
//     runs to its end. If the request was carried out, a new lease runs, and the old status is no longer
//     valid.
//   - [ErrStatusIsNil], [ErrInvalidLockID], [ErrReservedLockID], [ErrInvalidTTL], [ErrClosed], those of the database's state, and
//     what the driver reports.
func (l *Locker) RefreshLock(ctx context.Context, status *LockStatus, ttl time.Duration) (*LockStatus, error) {
	end, err := l.beginFor(status)
	if err != nil {
		return nil, err
	}
	defer end()

	if err := l.validateTTL(ttl); err != nil {
		return nil, err
	}

	// Unlike a first grant, one whose outcome is unknown is not returned: the caller may still be working
	// under the lease that it extends.
	watched, ended := l.watch.request(ctx, false, status.LockID, 1)

	res, err := l.store.Refresh(watched, status.LockID, status.state(), l.desk.Names.NextRefresh(), ttl, l.cfg.margin(ttl))
	if err == nil {
		err = handover.VerdictError(res.Verdict)
	}

	ended(res, err)

	return shown("refresh", status.LockID, res.Row, err)
}

// ReleaseLock releases the lock of the given status. The lease may have ended, if the lock was not granted to
// another since. If a call of this Locker waits for the lock, the same statement grants the lock to that call.
// A lock that was not released is free when its lease ends.
//
// Errors: [ErrWrongGeneration]; [ErrLockNotFound]; [ErrUnknownOutcome], if the reply was lost, or ctx ended
// while the request was under way; [ErrStatusIsNil]; [ErrInvalidLockID]; [ErrClosed]; those of the database's
// state; and what the driver reports.
func (l *Locker) ReleaseLock(ctx context.Context, status *LockStatus) error {
	end, err := l.beginFor(status)
	if err != nil {
		return err
	}
	defer end()

	watched, ended := l.watch.start(ctx, OperationRelease, status.LockID, 1, status.Generation)
	err = l.desk.ReleaseOnce(watched, l.store, &handover.Tenure{LockID: status.LockID, State: status.state()})
	ended(err)

	return failed("release", status.LockID, err)
}

// shown returns what the database showed of a lock, or the error.
func shown(verb, lockID string, row store.Row, err error) (*LockStatus, error) {
	if err != nil {
		return nil, failed(verb, lockID, err)
	}

	return newStatus(lockID, row), nil
}

// beginFor is begin for the lock of a status.
func (l *Locker) beginFor(status *LockStatus) (end func(), err error) {
	if status == nil {
		return nil, ErrStatusIsNil
	}

	return l.begin(status.LockID)
}
