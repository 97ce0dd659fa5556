package pglocker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
)

// Do takes the lock, runs fn while it keeps the lock alive, and releases it when
// fn has returned or panicked. If another holds the lock, Do fails at once, or
// waits as [WithWait] says.
//
// The lease runs for lockTTL, and is renewed every relockInterval, or earlier
// where that leaves too little time for a renewal to be repeated. Renewals go
// over a connection of their own and survive whatever ends within the lease:
// dropped connections, a server that restarts, a pool in which nothing is free.
//
// fn's context ends when ctx ends, when the Locker is closed (cause [ErrClosed]),
// and the moment the lock can't be trusted any more (cause matching
// [ErrLockLost]): the database says that it is gone, or no renewal was
// acknowledged until [Config.SafetyMargin] before the end of the lease. The
// database can't grant the lock to another before that moment, even if it hangs
// or can't be reached. fn should return soon after; Do waits for it. Until then
// fn is the only one, unless its process is paused, the database's clock jumps
// by more than the margin, or the database loses commits; [Guard] and the fencing
// token, [Token], cover those cases too.
//
// Do returns fn's error as it is. It joins to it: an error matching ErrLockLost,
// if the lock was lost while fn ran; [ErrNotReleased], if the lock was held to
// the end but the database couldn't be told, so that it stays held until its TTL
// is over. A panic of fn goes on after the release. The release has a context of
// its own, bounded by what is left of the lease and half a second, and is made even
// if ctx has ended.
//
// Other errors mean that fn was not called: those of [Locker.AcquireLock];
// [ErrInvalidRelockInterval], if relockInterval is not above zero and below
// lockTTL; [ErrFuncIsNil]. Nor was it called if an error matching ErrLockLost says that
// the grant took as long as its lease; the lock is then given back.
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

	end, err := l.beginVerb(lockID)
	if err != nil {
		return err
	}
	defer end()

	lock, err := l.take(ctx, ctx, lockID, lockTTL, tryLock, options)
	if err != nil {
		return failed("do", lockID, err)
	}

	stop := context.AfterFunc(l.ctx, func() { lock.cancel(ErrClosed) })
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

// StartRelocker keeps the lock of the given status alive until ctx ends, and then
// releases it; it blocks until that is done. It renews the lease at once to run
// for ttl, and then every relockInterval as [Locker.Do] does. Renewals don't
// change the generation, so the status stays the caller's token. A lock whose
// lease has ended is not revived: refresh it first.
//
// It returns nil after the release; an error matching [ErrLockLost] as soon as
// the lock can't be trusted any more, which is at the latest a TTL after the last
// acknowledged renewal, or after the call if there was none; [ErrNotReleased] as
// Do does; [ErrClosed], after the release, if the Locker is closed;
// [ErrStatusIsNil], [ErrInvalidLockID], [ErrInvalidTTL],
// [ErrInvalidRelockInterval].
func (l *Locker) StartRelocker(ctx context.Context, status *LockStatus, ttl, relockInterval time.Duration) error {
	if err := l.validateTTL(ttl); err != nil {
		return err
	}

	options, err := newLockOptions(ttl, relockInterval, nil)
	if err != nil {
		return err
	}

	end, err := l.beginStatusVerb(status)
	if err != nil {
		return err
	}
	defer end()

	detached := context.WithoutCancel(ctx)
	term := keepalive.Term{Sent: time.Now(), TTL: ttl, Margin: l.cfg.margin(ttl)}

	if l.undone(ctx, status, term) {
		return failed("relock", status.LockID, fmt.Errorf("%w: it was granted to another", ErrLockLost))
	}

	lock := l.hold(detached, status, term, options, true)

	var closed error

	select {
	case <-ctx.Done():
	case <-lock.ctx.Done():
		// The caller believes until this returns. What is left of the lease is given up
		// after that, and whether the database answers doesn't matter to it.
		if err := lock.loss(); err != nil {
			if end, beginErr := l.begin(); beginErr == nil {
				go func() {
					defer end()

					_ = lock.Unlock(detached) // it was lost; freeing it is a courtesy
				}()
			}

			return failed("relock", status.LockID, err)
		}
	case <-l.ctx.Done():
		closed = ErrClosed
	}

	if err := errors.Join(closed, lock.Unlock(detached)); err != nil {
		return failed("relock", status.LockID, err)
	}

	return nil
}

// undone reports whether a status is of a state that a crash has undone, and whose
// generation another has now. It asks as giveUp does, over the pool first. If the
// database doesn't say so within the term, it isn't known to be: the release goes by
// the status again.
func (l *Locker) undone(ctx context.Context, status *LockStatus, term keepalive.Term) bool {
	state := status.state()
	if state.Until.IsZero() {
		return false
	}

	ctx, cancel := context.WithTimeout(ctx, term.Left(time.Now()))
	defer cancel()

	var (
		st    = l.store
		spare *spareSession
	)

	defer func() {
		if spare != nil {
			l.spare.done()
		}
	}()

	for n := 0; ; n++ {
		left := term.Left(time.Now())

		if spare == nil && (n > 0 || l.store.Exhausted()) {
			spare = l.spare.use(l.newSpare)
			st = spare.store
		}

		var undone bool

		err := spare.opened(ctx, left)
		if err == nil {
			attempt, cancel := context.WithTimeout(ctx, attemptFor(left/4))
			if spare == nil {
				attempt, cancel = overPool(attempt, cancel)
			}

			undone, err = st.Undone(attempt, status.LockID, state)

			cancel()
		}

		if errors.Is(err, store.ErrNoConnection) {
			continue
		}

		if err == nil || !store.Transient(err) || !store.Pause(ctx, min(left/20, time.Second)) {
			return err == nil && undone
		}
	}
}
