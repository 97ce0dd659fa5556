package pglocker

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
)

// ForceRelease ends the tenure of a lock that another holds, whatever its lease. It is for people, and for tools
// that people use: a holder doesn't need it, and a dead one's lease ends by itself.
//
// token says which tenure: [LockStatus.Generation] as you saw it. The lock may be a recipe's, such as a
// semaphore's slot. If the holder has released it and left a minimum hold, that ends. Waiters are woken, as by
// any release. A history ([MigrateHistory]) has the reason.
//
// The holder isn't asked. If it holds the lock through this Locker, its context is cancelled first, with a cause
// that matches [ErrLockLost]. A holder in another Locker learns of it from its next renewal, or when it releases.
// Until then it works on, perhaps beside the next holder: only the guard or the token stops its writes. No renewal
// brings the lock back.
//
// [Config.Logger] is told who did it, and why: a warning with the attributes lock, token, by, reason, holder and
// left. by is the name of this Locker.
//
// Errors:
//
//   - [ErrWrongGeneration]: the lock was granted, refreshed or released since. Look again.
//   - [ErrLockNotFound].
//   - [ErrUnknownOutcome], if the reply was lost, or ctx ended while the request was under way. A holder in this
//     Locker that has unlocked meanwhile released nothing: the lock is free when its lease ends, at the latest.
//   - [ErrInvalidLockID]; [ErrReservedLockID] for a row that is of [KindInternal]; [ErrClosed]; those of the
//     database's state; and what the driver reports.
func (l *Locker) ForceRelease(ctx context.Context, lockID string, token int64, reason string) error {
	if err := validateLockID(lockID); err != nil {
		return err
	}

	if kind, _ := KindOf(lockID); kind == KindInternal {
		return fmt.Errorf("%w: %q", ErrReservedLockID, lockID)
	}

	end, err := l.desk.Begin()
	if err != nil {
		return err
	}
	defer end()

	watched, ended := l.watch.start(ctx, OperationRelease, lockID, 1, token)
	err = l.forceRelease(watched, lockID, token, reason)
	ended(err)

	return failed("force the release of", lockID, err)
}

func (l *Locker) forceRelease(ctx context.Context, lockID string, token int64, reason string) error {
	res, err := l.store.Look(ctx, lockID)

	switch {
	case err != nil:
		return err
	case res.Verdict == store.NotFound:
		return ErrLockNotFound
	case res.Row.Generation != token:
		return ErrWrongGeneration
	}

	// A holder must have stopped believing before the next begins to.
	lk := l.held.find(lockID, token)
	if lk != nil {
		l.renewer.Remove(&lk.lease)
		lk.setGone(true) // its own release would come first
		lk.group.lose(lk, keepalive.Loss{}, fmt.Errorf("%w: %q was released by force, reason: %q", ErrLockLost, lockID, reason), here)
	}

	forced, err := l.store.Force(ctx, lockID, token, cmp.Or(reason, "none given"))
	if err == nil {
		err = handover.VerdictError(forced.Verdict)
	}

	if err != nil {
		if lk != nil {
			lk.setGone(false)
		}

		return err
	}

	l.desk.Queue.Wake(cmp.Or(store.GateOf(lockID), lockID)) // the waiters here

	l.cfg.Logger.LogAttrs(ctx, slog.LevelWarn, "pglocker: a lock was released by force", slog.String("lock", lockID),
		slog.Int64("token", token), slog.String("by", l.desk.Names.Locker), slog.String("reason", reason),
		slog.String("holder", res.Row.Owner), slog.Duration("left", max(res.Row.Remaining(), 0).Round(time.Millisecond)))

	return nil
}
