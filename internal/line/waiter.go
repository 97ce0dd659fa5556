package line

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/outlive"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

const (
	// markFor is how long the mark of a waiting process stands on the row, and markEvery how often it is
	// renewed. A process that polls marks no time in which a release would notify, only that it is there: the
	// others must know that they are not alone.
	markFor     = store.LongestMark
	markPolling = time.Microsecond
	markEvery   = 4 * time.Second

	// pollMin is how long a head that polls sleeps at first. It then sleeps longer, up to [handover.PollMax].
	pollMin = 5 * time.Millisecond

	// idle is how long a waiter that isn't the head sleeps.
	idle = time.Minute

	// answerWithin is how long a caller that has left waits for an answer that should come at once.
	answerWithin = 100 * time.Millisecond
)

// waiter is one caller that waits for a lock.
type waiter struct {
	*Line
	Request

	place *waitqueue.Waiter
	// told is what the waiter knows for its error.
	told told
	// failures counts attempts without a listener, or without an answer, in a row.
	failures int
}

// wait is Acquire for a caller that waits. It asks first, unless others wait here: then its place is behind them.
func (l *Line) wait(ctx context.Context, r Request) (store.Result, error) {
	waiting := ctx

	if r.Limit > 0 {
		var cancel context.CancelFunc

		waiting, cancel = context.WithTimeout(ctx, r.Limit)
		defer cancel()
	}

	w := waiter{Line: l, Request: r}

	if !l.Desk.Queue.Waiting(r.LockID) {
		a, answered := l.firstWithin(waiting, r)

		switch {
		case !answered, a.err != nil && store.Passing(a.err):
			w.told.unanswered = a.err
			w.told.obstacle(a.err)
		case a.err != nil && a.res.Verdict == store.Busy:
			w.told.saw(a.res.Row)
		case a.err == nil && l.Desk.Term(a.res, r.TTL).Left(time.Now()) <= 0:
			l.Desk.Aside(func() { l.Desk.Return(r.LockID, a.res, r.TTL) })
		default:
			return a.res, w.limited(ctx, waiting, a.err)
		}
	}

	observed, end := l.Observe(waiting, true, r.LockID)

	res, err := w.inLine(observed)
	err = w.limited(ctx, waiting, err)

	end(err)

	return res, err
}

// inLine returns with a grant, delivered by the holder before or won by asking, or with an error.
func (w *waiter) inLine(ctx context.Context) (store.Result, error) {
	w.place = w.Desk.Queue.Join(w.LockID, w.TTL)

	w.Listener.Use()
	defer w.Listener.Done()

	var (
		look = time.NewTimer(0)
		next time.Time // when look fires
	)
	defer look.Stop()

	sleep := func(d time.Duration) {
		next = time.Now().Add(d)
		look.Reset(d)
	}
	sleep(handover.Jitter(idle))

	tell := w.noticeTimer(ctx)
	defer tell.Stop()

	for joined := time.Now(); ; {
		// Asleep.
		select {
		case res := <-w.place.Granted():
			return res, nil
		case <-ctx.Done():
			return store.Result{}, w.leave(outlive.Err(ctx))
		case <-w.Desk.Context().Done():
			return store.Result{}, w.leave(context.Cause(w.Desk.Context()))
		case <-w.place.Woken():
		case <-w.place.Hinted():
			if at := w.place.AskAt(); at.Before(next) {
				sleep(time.Until(at))
			}

			continue
		case <-tell.C:
			tell.Reset(noticeEvery)
			w.tellWaiting(ctx, w.LockID, joined)

			continue
		case <-look.C:
			if !w.place.IsHead() {
				sleep(handover.Jitter(idle))

				continue
			}
		}

		// Asking. Whether a release will be heard is found out before: what is released after the request is
		// then heard.
		heard := w.Listener.Proven()
		stale := time.Now().Add(-markEvery)

		a, answered := w.ask(ctx, heard, stale)

		switch {
		case !answered:
			continue // ctx or the Locker has ended
		case a.granted():
			return a.res, nil
		case errors.Is(a.err, ErrLate):
			w.told = told{unanswered: w.told.unanswered}
		case a.err != nil && !store.Transient(a.err):
			return store.Result{}, w.leave(a.err)
		case a.err != nil:
			w.told.obstacle(a.err)
		}

		// Where this request should have left a mark and may have left none, no release will be heard of.
		heard = heard && !w.Desk.Queue.MarkDue(w.LockID, stale, heard)

		sleep(w.next(a, heard))
	}
}

// ask makes one claim, for the head of the line. It leaves a mark if this process left none since stale. It is
// not answered if ctx or the Locker ends first.
func (w *waiter) ask(ctx context.Context, heard bool, stale time.Time) (a answer, answered bool) {
	var mark store.Mark
	if w.Desk.Queue.MarkDue(w.LockID, stale, heard) {
		mark = store.Mark{For: markPolling, Signature: w.Desk.Queue.Sign(w.LockID)}
		if heard {
			mark.For = markFor
		}
	}

	sent := time.Now()

	// Not even Close cancels it at once: what it brings would be lost.
	request, err := w.send(ctx, w.Request, beside.Attempt(w.TTL), func(ctx context.Context) answer {
		return w.claim(ctx, mark)
	})
	if err != nil {
		return answer{}, false
	}

	select {
	case a := <-request.Answer():
		if a.err == nil {
			w.note(a.res, heard)
		}

		if a.granted() {
			w.Desk.Queue.EndRun(w.LockID)

			// A grant that was delivered meanwhile is mostly older, and over.
			if delivered, ok := w.place.Leave(); ok && delivered.Row.Generation > a.res.Row.Generation {
				a.res = delivered
			}
		}

		return a, true
	case delivered := <-w.place.Granted():
		// Mostly the answer is on its way, and nothing is left of the request then. If it hangs, what it still
		// brings comes after this tenure, and is returned.
		a, ok := request.Within(answerWithin)
		if ok && a.granted() && a.res.Row.Generation > delivered.Row.Generation {
			return a, true
		}

		return answer{res: delivered}, true
	case <-ctx.Done():
		if took := time.Since(sent); took >= slow {
			w.told.inTheWay = fmt.Errorf("pglocker: the database has not answered for %s", took.Round(time.Second/10))
		}
	case <-w.Desk.Context().Done():
	}

	request.Leave()

	return answer{}, false
}

// claim sends one claim. A grant that is late is returned, and the waiter goes on as after a claim without an
// answer.
func (w *waiter) claim(ctx context.Context, mark store.Mark) (a answer) {
	a.res, a.err = w.Desk.Store.Claim(ctx, w.LockID, w.Desk.Names.Next(), w.TTL, w.Desk.Margin(w.TTL), mark)
	w.Desk.Settle(w.LockID, a.res.Stray, w.TTL)

	if late := a.res; a.granted() && w.Desk.Term(late, w.TTL).Left(time.Now()) <= 0 {
		w.Desk.Aside(func() { w.Desk.Return(w.LockID, late, w.TTL) })

		return answer{err: ErrLate}
	}

	return a
}

// note keeps what an answer tells about the lock and about those who wait for it.
func (w *waiter) note(res store.Result, heard bool) {
	w.Desk.Queue.FoundMark(w.LockID, res.Mark, res.Row.Now)

	if res.Verdict == store.Granted {
		w.Desk.Queue.Won(w.LockID)

		return
	}

	if rival := handover.LockerOf(res.Row.Owner); rival != "" && rival != w.Desk.Names.Locker && res.Row.Held() {
		w.Desk.Queue.Lost(w.LockID, rival)
	}

	if res.Marked {
		w.Desk.Queue.Marked(w.LockID, heard)
	}

	w.told.saw(res.Row)
}

// next is how long the head of the line sleeps unless it is woken. One that hears of releases asks at the end of
// the lease that it knows, and when its mark is to be renewed. Any other polls, at first soon and then less often.
func (w *waiter) next(a answer, heard bool) time.Duration {
	w.failures++

	poll := min(pollMin<<min(w.failures, 10), handover.PollMax)
	if heard && a.err == nil {
		w.failures = 0
		poll = markEvery
	}

	held := a.res.Row.Held()
	if a.err != nil || !held {
		poll = min(poll, handover.PollMax) // lost to another, whose lease isn't known yet
	}

	poll = handover.Jitter(poll)

	if held {
		poll = min(poll, a.res.Row.Remaining()+handover.PollLate)
	}

	return poll
}

// leave leaves the line, and returns a grant that was delivered too late. It adds to err what the waiter knows.
func (w *waiter) leave(err error) error {
	if res, ok := w.place.Leave(); ok {
		w.Desk.Aside(func() { w.Desk.Return(w.LockID, res, w.TTL) })
	}

	if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}

	if held := w.lastHeld(); held != nil {
		return fmt.Errorf("%w: %w", err, held)
	}

	if w.told.inTheWay != nil {
		return fmt.Errorf("%w: %w", err, w.told.inTheWay)
	}

	return err
}
