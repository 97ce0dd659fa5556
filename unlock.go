package pglocker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

// maxLocalRun bounds how often in a row a lock is handed over inside a process
// while another process is known to wait, or might. After that many the lock is
// freed for all.
const maxLocalRun = 16

// Unlock cancels the lock's context, and then ends the tenure. If somebody in this
// Locker waits for the lock, it is handed over to the first of them in the same
// statement; where another process is known to wait, at most 16 times in a row, or
// for 400 ms if this one can only poll.
//
// It returns nil if the lock was held to the moment of the call and is free now,
// or another's, or held until the time of [WithMinHold] is over. Errors:
//
//   - [ErrLockLost], also as its cause says why: the lock was lost before.
//   - [ErrAlreadyUnlocked]: Unlock was called before, or Do or Close did it.
//     Whether that call succeeded, it says itself.
//   - [ErrNotReleased], and the cause: the lock was held to the moment of the
//     call, but ctx ended or the lease did before the database had confirmed.
//     After ctx has ended the Locker goes on trying in the background. The lock
//     frees itself at the end of its lease at the latest.
//
// It returns when ctx ends, or half a second after the lease does at the latest.
func (lk *Lock) Unlock(ctx context.Context) error {
	l := lk.locker
	term := l.renewer.Remove(lk.lease)
	now := time.Now()

	if term.Left(now) <= 0 {
		// The renewer would have found it at its next look.
		lk.lose(keepalive.Loss{Cause: keepalive.Cause{Since: now.Sub(term.Sent)}})
	}

	lk.mu.Lock()
	again, lost, gone := lk.unlocked, lk.lost, lk.gone
	lk.unlocked = true
	lk.mu.Unlock()

	if again {
		return fmt.Errorf("%w: %q", ErrAlreadyUnlocked, lk.lease.LockID)
	}

	// Whoever works under this context must have stopped believing before the next
	// can begin to.
	lk.cancel(context.Canceled)

	// Close waits for this, whether it or somebody else is first to unlock.
	defer l.held.remove(lk)
	defer close(lk.freed)

	if gone {
		return lost // there is nothing to release
	}

	if end, err := l.begin(); err == nil {
		defer end()
	}

	span := l.watch.start(ctx, OperationRelease, lk.lease.LockID, 1)
	err := lk.free(span.ctx, now.Add(term.LeaseLeft(now)))
	span.end(err)

	switch {
	case lost != nil:
		return lost // freeing it early was a courtesy to those who wait
	case err == nil:
		return nil
	case errors.Is(err, ErrWrongGeneration), errors.Is(err, ErrLockNotFound):
		err = tidy(fmt.Errorf("%w: found on release: %w", ErrLockLost, err))
		lk.lostFor(keepalive.Loss{Gone: true, Cause: keepalive.Cause{Since: now.Sub(term.Sent)}}, err)

		return err
	default:
		return tidy(fmt.Errorf("%w: %w", ErrNotReleased, err))
	}
}

// free gives up the lock, and doesn't try again once the database no longer shows the
// lease. If ctx ends before that is done, it goes on by itself.
func (lk *Lock) free(ctx context.Context, until time.Time) error {
	given := &tenure{lockID: lk.lease.LockID, state: lk.state}
	if lk.minHold > 0 {
		given.heldUntil = lk.granted.Add(lk.minHold)
	}

	l := lk.locker

	err := l.giveUp(ctx, given, until)
	if err == nil || ctx.Err() == nil || !mayAskAgain(err) {
		return err
	}

	end, beginErr := l.begin()
	if beginErr != nil && lk.loss() == nil {
		// Close has not begun to wait for jobs: it waits for this Unlock before, or for
		// the function that holds the lock.
		l.jobs.Add(1)

		end, beginErr = l.jobDone, nil
	}

	if beginErr == nil {
		go func() {
			defer end()

			_ = l.giveUp(context.WithoutCancel(ctx), given, until) // its caller has been told that nobody knows
		}()
	}

	return err
}

const (
	// attemptMax bounds one attempt to release or to claim a lock, since a connection
	// may be dead without anybody knowing. The next attempt is made over another.
	attemptMax = 5 * time.Second
	// attemptMin is for how long an attempt is not given up, however short the lease. Giving
	// up costs a connection: the driver closes it. A pooler that has no connection to the
	// server free gives the request its turn all the same, closes one after it, and opens
	// the next when it gets to it. While it is slow, giving up sooner than it answers, and
	// asking again, keeps it slow for good.
	attemptMin = 500 * time.Millisecond
)

// connectWithin is how long a release waits for a connection of the pool before it goes over
// the spare one: not every driver can be asked whether a connection is free.
const connectWithin = 200 * time.Millisecond

// overPool gives up an attempt that gets no connection of the pool in time.
func overPool(attempt context.Context, cancel context.CancelFunc) (context.Context, context.CancelFunc) {
	attempt, done := store.ConnectWithin(attempt, connectWithin)

	return attempt, func() {
		done()
		cancel()
	}
}

// attemptFor is for how long one attempt goes on that should take d at most.
func attemptFor(d time.Duration) time.Duration { return min(max(d, attemptMin), attemptMax) }

// giveUp passes a tenure on, and asks again where there was no answer, until the lease
// is over as far as is known. It asks over the pool, and from the second time on, or
// where the whole pool is in use, over the spare connection.
func (l *Locker) giveUp(ctx context.Context, t *tenure, until time.Time) error {
	var (
		spare  *spareSession
		doubt  bool
		failed bool
		left   = time.Until(until)
	)

	if left <= 0 {
		l.wakeAt(t.lockID, until)

		return errLeaseOver
	}

	defer func() {
		if spare != nil {
			l.spare.done()
		}

		if failed {
			l.releaseSettled()
		}
	}()

	for n := 0; ; n++ {
		st := l.store

		if n > 0 || l.store.Exhausted() {
			if spare == nil {
				spare = l.spare.use(l.newSpare)
			}

			st = spare.store
		}

		err := spare.opened(ctx, time.Until(until))
		switch {
		case err != nil:
		case !time.Now().Before(until):
			err = errLeaseOver
		default:
			attempt, cancel := context.WithTimeout(ctx, attemptFor(min(left/4, time.Until(until))))
			if spare == nil {
				attempt, cancel = overPool(attempt, cancel)
			}

			err = l.pass(attempt, st, t)

			cancel()
		}

		if errors.Is(err, store.ErrNoConnection) && !errors.Is(err, ErrUnknownOutcome) {
			continue
		}

		// Who waits here has not asked the database, since the lock was held here. It is
		// woken when there is something to be had.
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrWrongGeneration), errors.Is(err, ErrLockNotFound):
			l.queue.Wake(t.lockID)

			switch {
			case t.passed:
				// Only what it was passed on as is gone, a lease that was over say.
				return nil
			case doubt && errors.Is(err, ErrWrongGeneration):
				// The lock was this one's when the request went out whose reply was
				// lost, so that request was the one that moved the generation.
				return nil
			}

			return err
		case !mayAskAgain(err):
			l.wakeAt(t.lockID, until)

			return err
		case errors.Is(err, ErrUnknownOutcome):
			doubt = true
		}

		if !failed {
			failed = true

			l.failing.Add(1)
		}

		l.releaseFailed(t, err)

		if !store.Pause(ctx, min(left/20, time.Second, time.Until(until))) || !time.Now().Before(until) {
			l.wakeAt(t.lockID, until)

			return err
		}
	}
}

// errLeaseOver is why a lock isn't given up any more.
var errLeaseOver = fmt.Errorf("the lease is over: %w", context.DeadlineExceeded)

// wakeAt makes who waits here look when the lease is over.
func (l *Locker) wakeAt(lockID string, until time.Time) {
	l.queue.WakeAfter(lockID, time.Until(until)+pollLate)
}

// mayAskAgain reports whether an error leaves the request unanswered, for reasons
// that may pass.
func mayAskAgain(err error) bool {
	return !errors.Is(err, ErrWrongGeneration) && !errors.Is(err, ErrLockNotFound) && store.Transient(err)
}

// tenure is what is given up: the lock as long as its generation is this one.
type tenure struct {
	lockID    string
	state     store.State
	heldUntil time.Time // zero: no minimum hold
	// passed: its lock was handed over, and what is left to give up is that grant, since
	// nobody was there to take it.
	passed bool
}

// pass gives up a tenure: to the first who waits in this Locker, or to all. If a
// waiter leaves while its grant is on the way, the grant becomes the tenure.
func (l *Locker) pass(ctx context.Context, st *store.Store, t *tenure) error {
	hold := time.Until(t.heldUntil)

	// A closed Locker's waiters are leaving, and what may have been free isn't handed over.
	for hold <= 0 && l.ctx.Err() == nil && !l.store.Dated(t.state) {
		head, run := l.queue.Head(t.lockID)
		if head == nil || l.runIsOver(run) {
			break
		}

		res, err := st.HandOver(ctx, t.lockID, t.state.Generation, l.grantName(), head.TTL, l.cfg.margin(head.TTL))
		if err != nil {
			l.giveBack(t.lockID, res.Stray, head.TTL)

			return err
		}

		if err := verdictError(res.Verdict); err != nil {
			return err
		}

		t.state, t.passed = store.State{Generation: res.Row.Generation}, true
		l.queue.Saw(t.lockID, res.Row.ContendedUntil, res.Row.Now)

		// One that took as long as its lease is passed on, as one whose waiter has left.
		if l.termOf(res, head.TTL).Left(time.Now()) > 0 && l.queue.Deliver(head, res) {
			// The next holder's work comes before what is left of this one's.
			runtime.Gosched()

			return nil
		}
	}

	_, run := l.queue.Head(t.lockID)
	over := l.runIsOver(run)

	l.queue.EndRun(t.lockID)

	res, err := st.Release(ctx, t.lockID, t.state, max(hold, 0))

	switch heard := l.listener.Proven(); {
	case !over || heard && !res.Notified:
		l.queue.Wake(t.lockID)
	case heard:
		// The own waiters hear of it as all others do, and have no head start.
	default:
		// Others poll, and each must have had a look before the own waiters do.
		l.queue.WakeAfter(t.lockID, pollMax+jitter(pollMax))
	}

	if err != nil {
		return err
	}

	return verdictError(res.Verdict)
}

// runIsOver reports whether a lock has been handed over inside this process for
// long enough, given that others may wait. Those who listen can be served after
// each few hand-overs; those who poll only look now and then, and for each look
// the lock must lie free for a while, so they are given longer turns.
func (l *Locker) runIsOver(run waitqueue.Run) bool {
	othersMayWait := run.Others || !l.store.Full() // without the column nobody can say so
	if !othersMayWait || run.Length < l.localRun {
		return false
	}

	return l.listener.Proven() || time.Since(run.Began) >= pollMax
}
