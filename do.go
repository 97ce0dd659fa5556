package pglocker

import (
	"context"
	"errors"
	"time"
)

// Do takes the lock, runs fn while it keeps the lock alive, and releases the lock when fn
// has returned or panicked. If another holds the lock, Do fails at once with
// [ErrAlreadyLocked], or waits as [WithWait] says.
//
// The lease runs for lockTTL. Do renews it every relockInterval, or earlier where that
// leaves too little time to repeat a renewal. Renewals go over a connection of their own.
// They survive what ends within the lease: dropped connections, a server that restarts, a
// pool in which nothing is free.
//
// fn's context ends
//
//   - when ctx ends;
//   - with cause [ErrClosed], when the Locker is closed;
//   - with a cause that matches [ErrLockLost], when the lock can't be trusted any more: the
//     database says that it is gone, or no renewal was acknowledged until
//     [Config.SafetyMargin] before the end of the lease.
//
// Do waits for fn, which should return soon after that. Until its context ends, fn is the
// only holder, even if the database hangs or can't be reached. Three things break that: a
// pause of fn's process, a step of the database's clock by more than the margin, and a
// database that loses commits. [Guard] and the fencing token, [Token], cover these too.
//
// Do returns fn's error as it is, joined with
//
//   - an error that matches ErrLockLost, if the lock was lost while fn ran;
//   - [ErrNotReleased], if the lock was held to the end but the release was not
//     acknowledged. It then stays held until its lease ends at the latest.
//
// A panic of fn goes on after the release. Do releases the lock even if ctx has ended, and
// tries for as long as the lease lasts, and half a second.
//
// If fn was not called, the error is one of [Locker.AcquireLock]; [ErrInvalidRelockInterval],
// if relockInterval is not above zero and below lockTTL; [ErrFuncIsNil]; one of the options;
// or an error that matches ErrLockLost, if the grant took as long as its lease. That grant
// was released.
func (l *Locker) Do(
	ctx context.Context, lockID string, lockTTL, relockInterval time.Duration,
	fn func(ctx context.Context) error, opts ...LockOption,
) (err error) {
	if fn == nil {
		return ErrFuncIsNil
	}

	if err := l.validateTTL(lockTTL); err != nil {
		return err
	}

	options, err := newLockOptions(lockTTL, relockInterval, opts)
	if err != nil {
		return err
	}

	end, err := l.begin(lockID)
	if err != nil {
		return err
	}
	defer end()

	lock, err := l.take(ctx, ctx, lockID, lockTTL, options)
	if err != nil {
		return failed("do", lockID, err)
	}

	stop := context.AfterFunc(l.desk.Context(), func() { lock.cancel(ErrClosed) })
	defer stop()

	defer func() {
		switch unlockErr := lock.Unlock(context.WithoutCancel(ctx)); {
		case unlockErr == nil:
		case errors.Is(unlockErr, ErrAlreadyUnlocked):
			// fn did it, and was told how it went, or will be: it may have left that to
			// another goroutine, for which Close waits as long as this does.
			<-lock.freed
		case errors.Is(err, ErrLockLost) && errors.Is(unlockErr, ErrLockLost):
			// fn has returned the cause of its context: that says it all.
		default:
			err = errors.Join(err, unlockErr)
		}
	}()

	return fn(lock.Context())
}
