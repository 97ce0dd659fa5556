package pglocker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

const (
	// markFor is how long the mark of a waiting process stands on the row, and
	// markEvery how often it is renewed.
	// Who can't listen marks no time in which a release would notify, only that it
	// is there: the others must know that they are not alone.
	markFor     = store.LongestMark
	markPolling = time.Microsecond
	markEvery   = 4 * time.Second

	// Without a listener that is known to hear, the head of a line polls, at first
	// soon and then less often. With one it looks again at the end of the lease
	// that it knows, and when it renews its mark.
	pollMin = 5 * time.Millisecond
	pollMax = 400 * time.Millisecond

	// politeness is how long a process leaves a free lock to another whose turn it is.
	// That one asks at once.
	politeness = time.Millisecond

	// patience is how long a waiter sleeps that has not asked the database.
	patience = time.Minute

	// pollLate is how long after the known end of a lease it is looked at: that
	// end was computed from an answer that was under way for a while.
	pollLate = 2 * time.Millisecond

	// answerWithin is how long a grant that was delivered waits for the answer to a
	// request of the same waiter.
	answerWithin = 100 * time.Millisecond

	// giveUpGrace is how long a request goes on whose waiter has left. Its answer
	// tells whether there is a grant to give back.
	giveUpGrace = time.Second
)

// acquireWaiting takes the lock; if another holds it, and wait or limit say so, it
// waits.
func (l *Locker) acquireWaiting(ctx context.Context, lockID string, ttl time.Duration, wait bool, limit time.Duration) (store.Result, error) {
	if limit == Forever {
		wait, limit = true, 0
	}

	if !wait && limit == 0 {
		return l.acquireFirst(ctx, lockID, ttl)
	}

	if err := l.heldBy(ctx, lockID); err != nil {
		return store.Result{}, err
	}

	waiting := ctx

	if limit > 0 {
		var cancel context.CancelFunc

		waiting, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}

	// limitPassed: the time of WithWait is over, rather than that of the caller's context.
	limitPassed := func() bool { return waiting.Err() != nil && ctx.Err() == nil }

	w := waiter{locker: l, lockID: lockID, ttl: ttl}

	// Who comes while others wait in this process takes its place behind them.
	if !l.queue.Waiting(lockID) {
		res, answered, err := l.askFirst(waiting, lockID, ttl)

		switch {
		case !answered, err != nil && store.Passing(err):
			w.unanswered = err
			w.inTheWay = inTheWay(err)
		case errors.As(err, &w.held):
		case err == nil && l.termOf(res, ttl).Left(time.Now()) <= 0:
			l.late(lockID, res, ttl)
		case errors.Is(err, context.DeadlineExceeded) && limitPassed():
			return res, w.stillHeld(ctx, err)
		default:
			return res, err
		}
	}

	span := l.watch.start(waiting, OperationWait, lockID, 1)

	res, err := w.wait(span.ctx)
	if errors.Is(err, context.DeadlineExceeded) && limitPassed() {
		err = w.stillHeld(ctx, err)
	}

	span.end(err)

	return res, err
}

// heldBy is the error of a caller that would wait for a lock that is held under its own
// context; nil if no such lock is held.
func (l *Locker) heldBy(ctx context.Context, lockID string) error {
	for lk, _ := FromContext(ctx); lk != nil; lk = lk.outer {
		if lk.lease.LockID == lockID && lk.locker.sameTable(l) && lk.over() == nil {
			return fmt.Errorf("%w; it is held under the context of this call, which would wait for itself", lk.heldError())
		}
	}

	return nil
}

// sameTable reports whether another Locker's locks are the same, as far as can be told
// without asking.
func (l *Locker) sameTable(other *Locker) bool {
	return l == other || l.db == other.db && l.cfg.table() == other.cfg.table()
}

// askFirst is the request of a caller that is ready to wait, but perhaps needn't. It is
// not answered if that takes too long: its connection may be dead without anybody
// knowing, and who waits asks again over another.
func (l *Locker) askFirst(ctx context.Context, lockID string, ttl time.Duration) (res store.Result, answered bool, err error) {
	attempt, cancel := context.WithTimeout(ctx, attemptMax)
	defer cancel()

	// Close waits for no longer than for who waits already.
	stop := context.AfterFunc(l.ctx, func() { cancelSoon(attempt, cancel) })
	defer stop()

	res, err = l.acquireFirst(attempt, lockID, ttl)

	switch {
	case err == nil || errors.Is(err, ErrAlreadyLocked) || attempt.Err() == nil || ctx.Err() != nil:
		return res, true, err
	case l.ctx.Err() != nil:
		return res, true, fmt.Errorf("%w: %w", ErrClosed, err)
	}

	return store.Result{}, false, err
}

// stillHeld is the error of a waiter whose time is over, and which would have failed with
// err. One that was never the head of its line hasn't asked who holds the lock.
func (w *waiter) stillHeld(ctx context.Context, err error) error {
	held := w.lastHeld()

	if held == nil {
		if w.unanswered != nil {
			err = w.unanswered
		}

		ctx, cancel := context.WithTimeout(ctx, giveUpGrace)
		defer cancel()

		seen, getErr := w.locker.store.Get(ctx, w.lockID)
		if inLine := w.place != nil && w.unanswered == nil; getErr != nil || !inLine && !seen.Row.Held() {
			return err
		}

		held = w.locker.heldError(w.lockID, seen.Row)
	}

	// What was asked for and not answered may be what holds the lock now.
	if errors.Is(err, ErrUnknownOutcome) {
		return fmt.Errorf("%w: %w", err, held)
	}

	return held
}

// waiter is one caller that waits for a lock.
type waiter struct {
	locker *Locker
	lockID string
	ttl    time.Duration

	place *waitqueue.Waiter
	// held is the last answer of the database, nil if there was none.
	held *HeldError
	// inTheWay is why the database has not answered since then; nil if it has answered, or
	// wasn't asked.
	inTheWay error
	// unanswered is why the request before this wait had no answer.
	unanswered error
	// failures counts attempts without a listener, or without an answer, in a row.
	failures int
}

// wait returns with a grant, delivered by who unlocked or won by asking, or with
// an error when ctx ends.
func (w *waiter) wait(ctx context.Context) (store.Result, error) {
	l := w.locker

	w.place = l.queue.Join(w.lockID, w.ttl)

	l.listener.Use()
	defer l.listener.Done()

	// Who is not the head, or became it because the one before was delivered the
	// lock, is told by this process whatever there is to know. The timer is a safety
	// net.
	look := time.NewTimer(jitter(patience))

	defer look.Stop()

	tell := l.noticeTimer(ctx)

	defer tell.Stop()

	for joined := time.Now(); ; {
		select {
		case res := <-w.place.Granted():
			return res, nil
		case <-ctx.Done():
			return store.Result{}, w.leave(ended(ctx))
		case <-l.ctx.Done():
			return store.Result{}, w.leave(ErrClosed)
		case <-w.place.Woken():
		case <-w.place.Hinted():
			look.Reset(politeness)

			continue
		case <-tell.C:
			tell.Reset(noticeEvery)
			l.tellWaiting(ctx, w.lockID, joined)

			continue
		case <-look.C:
			if !w.place.IsHead() {
				look.Reset(jitter(patience))

				continue
			}
		}

		// Whether a release will be heard is asked before the look: what is released
		// after that look is then heard.
		heard := l.listener.Proven()
		stale := time.Now().Add(-markEvery)

		res, answered, err := w.ask(ctx, heard, stale)

		switch {
		case !answered:
			continue // ctx or the Locker has ended
		case err == nil && res.Verdict == store.Granted:
			return res, nil
		case err != nil && !store.Transient(err):
			return store.Result{}, w.leave(err)
		case errors.Is(err, errLateGrant):
			w.held, w.inTheWay = nil, nil // no longer
		case err != nil:
			w.inTheWay = inTheWay(err)
		}

		// Where this look should have left a mark and may have left none, no release
		// will be heard of.
		heard = heard && !l.queue.MarkDue(w.lockID, stale, heard)

		look.Reset(w.next(res, err, heard))
	}
}

// ask asks the database once. The request is the Locker's, not the caller's: if
// ctx ends while it is under way, it goes on for a moment so that a grant that
// still arrives can be given back, whatever the table. It leaves a mark if this process
// left none since stale. answered is false if the waiter need not know the answer any
// more.
func (w *waiter) ask(ctx context.Context, heard bool, stale time.Time) (res store.Result, answered bool, err error) {
	l := w.locker

	var mark store.Mark
	if l.queue.MarkDue(w.lockID, stale, heard) {
		mark = store.Mark{For: markPolling, Signature: l.queue.Sign(w.lockID)}
		if heard {
			mark.For = markFor
		}
	}

	type reply struct {
		res store.Result
		err error
	}

	var (
		sent    = time.Now()
		name    = l.grantName()
		replies = make(chan reply)
		left    = make(chan struct{})
	)

	// Not even Close cancels it at once: what it brings would be lost.
	requestCtx, cancel := context.WithTimeout(store.Outlive(ctx), attemptFor(w.ttl))

	end, err := l.begin()
	if err != nil {
		cancel()

		return store.Result{}, false, err
	}

	go func() {
		defer end()
		defer cancel()

		res, err := l.store.Claim(requestCtx, w.lockID, name, w.ttl, l.cfg.margin(w.ttl), mark)
		l.giveBack(w.lockID, res.Stray, w.ttl)

		// Who waits goes on then, as after an attempt that wasn't answered.
		if err == nil && res.Verdict == store.Granted && l.termOf(res, w.ttl).Left(time.Now()) <= 0 {
			l.late(w.lockID, res, w.ttl)
			res, err = store.Result{}, errLateGrant
		}

		select {
		case replies <- reply{res, err}:
		case <-left:
			// Nobody waits for this request any more. If it has brought a grant, that
			// is passed on.
			if err == nil && res.Verdict == store.Granted {
				l.passOn(w.lockID, res, w.ttl)
			}
		}
	}()

	select {
	case r := <-replies:
		if r.err == nil {
			w.note(r.res, heard)
		}

		if r.err == nil && r.res.Verdict == store.Granted {
			l.queue.EndRun(w.lockID)

			// A grant that was delivered meanwhile is mostly older, and over.
			if delivered, ok := w.place.Leave(); ok && delivered.Row.Generation > r.res.Row.Generation {
				return delivered, true, nil
			}
		}

		return r.res, true, r.err
	case delivered := <-w.place.Granted():
		// Mostly the answer is on its way, and nothing is left of the request then. If
		// it hangs, what it still brings comes after this tenure, and is passed on.
		select {
		case r := <-replies:
			if r.err == nil && r.res.Verdict == store.Granted && r.res.Row.Generation > delivered.Row.Generation {
				return r.res, true, nil
			}
		case <-time.After(answerWithin):
			close(left)
			cancelSoon(requestCtx, cancel)
		}

		return delivered, true, nil
	case <-ctx.Done():
		if took := time.Since(sent); took >= old {
			w.inTheWay = fmt.Errorf("pglocker: the database has not answered for %s", took.Round(time.Second/10))
		}
	case <-l.ctx.Done():
	}

	close(left)
	cancelSoon(requestCtx, cancel)

	return store.Result{}, false, nil
}

// note keeps what an answer tells about the lock and about those who wait for it.
func (w *waiter) note(res store.Result, heard bool) {
	l := w.locker

	l.queue.Saw(w.lockID, res.Mark, res.Row.Now)

	if res.Verdict == store.Granted {
		l.queue.Won(w.lockID)

		return
	}

	if rival := nameOf(res.Row.Owner); rival != "" && rival != l.name && res.Row.Held() {
		l.queue.Lost(w.lockID, rival)
	}

	if res.Marked {
		l.queue.Marked(w.lockID, heard)
	}

	w.held, w.inTheWay = l.heldError(w.lockID, res.Row), nil
}

// next is how long the head of the line sleeps unless it is woken.
func (w *waiter) next(res store.Result, err error, heard bool) time.Duration {
	w.failures++

	poll := min(pollMin<<min(w.failures, 10), pollMax)
	if heard && err == nil {
		w.failures = 0
		poll = markEvery
	}

	if err != nil || !res.Row.Held() {
		poll = min(poll, pollMax) // lost to another, whose lease isn't known yet
	}

	poll = jitter(poll)

	if res.Row.Held() {
		poll = min(poll, res.Row.Remaining()+pollLate)
	}

	return poll
}

// jitter is between half of d and all of it, so that those who wait don't ask in
// step.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(max(d/2, 1)) }

// leave gives up the place in the line, and passes on a grant that came too late.
func (w *waiter) leave(err error) error {
	if res, ok := w.place.Leave(); ok {
		w.locker.late(w.lockID, res, w.ttl)
	}

	if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}

	if held := w.lastHeld(); held != nil {
		return fmt.Errorf("%w: %w", err, held)
	}

	if w.inTheWay != nil {
		return fmt.Errorf("%w: %w", err, w.inTheWay)
	}

	return err
}

// lastHeld is what was last seen of the lock, and what has been in the way since then. It
// is nil if nothing was seen.
func (w *waiter) lastHeld() error {
	switch {
	case w.held == nil:
		return nil
	case w.inTheWay == nil:
		return w.held.aged(time.Now())
	}

	return fmt.Errorf("%w; since then: %w", w.held.aged(time.Now()), w.inTheWay)
}

// inTheWay is an error that kept a waiter from an answer, as a waiter that leaves returns it.
// A grant that may still come is returned, and the contexts of requests aren't the caller's:
// such errors are told and not matched.
func inTheWay(err error) error {
	if errors.Is(err, ErrUnknownOutcome) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return errors.New(err.Error())
	}

	return err
}

// late passes on a grant whose caller has left, in the background.
func (l *Locker) late(lockID string, res store.Result, ttl time.Duration) {
	end, err := l.begin()
	if err != nil {
		l.passOn(lockID, res, ttl) // Close waits for who calls this

		return
	}

	go func() {
		defer end()
		l.passOn(lockID, res, ttl)
	}()
}

// errLateGrant is why a grant is none to work under.
var errLateGrant = fmt.Errorf("%w: the grant took as long as its lease", ErrLockLost)

// termOf is for how long a grant can be believed in.
func (l *Locker) termOf(res store.Result, ttl time.Duration) keepalive.Term {
	return keepalive.Term{Sent: res.Sent, TTL: ttl, Margin: l.cfg.margin(ttl)}.Shown(res.Lease())
}

// passOn gives up a grant that nobody wants any more, for as long as its lease
// may run; when the Locker is closed, for a moment.
func (l *Locker) passOn(lockID string, res store.Result, ttl time.Duration) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(l.ctx))
	defer cancel()

	stop := context.AfterFunc(l.ctx, func() { cancelSoon(ctx, cancel) })
	defer stop()

	until := res.Sent.Add(ttl)
	if !time.Now().Before(until) {
		l.queue.Wake(lockID)

		return
	}

	given := tenure{lockID: lockID, state: store.State{Generation: res.Row.Generation}}
	if err := l.giveUp(ctx, &given, until); err != nil {
		l.log.Warn("pglocker: a grant that came too late was not given back; it expires", "lock", lockID, "error", err)
	}
}
