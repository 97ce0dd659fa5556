package pglocker

import (
	"context"
	"errors"
	"time"
)

// Do takes the lock, runs fn while it keeps the lock alive, and releases the lock when fn has returned or
// panicked. If another holds the lock, Do fails at once with [ErrAlreadyLocked], or waits as [WithWait] says.
//
// The lease runs for lockTTL. Do renews it every relockInterval, or more often if that would leave too little
// time to repeat a failed renewal. The lock survives troubles that end before its lease does: dropped
// connections, a server that restarts, a pool without a free connection.
//
// fn's context ends
//
//   - when ctx ends;
//   - with cause [ErrClosed], when the Locker is closed;
//   - with a cause that matches [ErrLockLost], when the lock can't be trusted any more. Either the database
//     said that it is gone, or [Config.SafetyMargin] before the end of the lease no renewal was acknowledged.
//
// fn should return soon after that; Do waits for it. Until its context ends, fn is the only holder, even if
// the database hangs. Only a pause of the process, a step of the database's clock by more than the margin, or
// a database that loses commits can break that. [Guard] and the fencing token, [Token], cover these too.
//
// Do returns fn's error as it is, joined with
//
//   - an error that matches ErrLockLost, if the lock was lost while fn ran;
//   - [ErrNotReleased], if the lock was held to the end but its release was not acknowledged.
//
// A panic of fn goes on after the release. Do releases the lock even if ctx has ended. If the database doesn't
// answer, it tries until half a second after the end of the lease.
//
// If fn was not called, the error is one of
//
//   - those of [Locker.AcquireLock] and of the options;
//   - [ErrInvalidRelockInterval], if relockInterval is not above zero and below lockTTL;
//   - [ErrFuncIsNil];
//   - one that matches ErrLockLost, if the grant took as long as its lease and was released.
func (l *Locker) Do(
	ctx context.Context, lockID string, lockTTL, relockInterval time.Duration,
	fn func(ctx context.Context) error, opts ...LockOption,
) error {
	if fn == nil {
		return ErrFuncIsNil
	}

	options, end, err := l.beginLock(lockID, lockTTL, relockInterval, opts)
	if err != nil {
		return err
	}
	defer end()

	lock, err := l.take(ctx, ctx, lockID, lockTTL, options)
	if err != nil {
		return failed("do", lockID, err)
	}

	return lock.group.run(ctx, fn)
}

// run runs fn under the locks, and unlocks them.
func (g *group) run(ctx context.Context, fn func(ctx context.Context) error) (err error) {
	stop := context.AfterFunc(g.locker.desk.Context(), func() { g.cancel(ErrClosed) })
	defer stop()

	defer func() {
		switch unlockErr := g.unlock(context.WithoutCancel(ctx)); {
		case unlockErr == nil:
		case errors.Is(unlockErr, ErrAlreadyUnlocked):
			// fn did it, perhaps on another goroutine, which Close waits for as this does.
			<-g.freed
		case errors.Is(err, ErrLockLost) && errors.Is(unlockErr, ErrLockLost):
			// fn has returned the cause of its context.
		default:
			err = errors.Join(err, unlockErr)
		}
	}()

	return fn(g.ctx)
}
