package line

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/pause"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

const (
	// markFor is how long the mark of a process stands on the row, and markEvery how often it is renewed. A
	// process that polls wants no notification. It only marks that it is there.
	markFor     = store.LongestMark
	markPolling = time.Microsecond
	markEvery   = handover.MarkEvery

	// pollMin is how long a head that polls sleeps at first. It then sleeps longer, up to [handover.PollMax].
	pollMin = 5 * time.Millisecond

	// idle is how long a waiter sleeps that was not woken as the head.
	idle = time.Minute

	// answerWithin is how long a caller that has left waits for an answer that should come at once.
	answerWithin = 100 * time.Millisecond
)

// waiter is one caller that waits for a lock.
type waiter struct {
	*Line
	Request

	place *waitqueue.Waiter
	told  told
	// failures counts attempts without a listener, or without an answer, in a row.
	failures int
}

// wait is Acquire for a caller that waits. It asks first, unless others wait here.
func (l *Line) wait(ctx context.Context, r Request) (store.Result, error) {
	waiting := ctx

	if r.Wait < math.MaxInt64 {
		var cancel context.CancelFunc

		waiting, cancel = context.WithTimeout(ctx, r.Wait)
		defer cancel()
	}

	w := waiter{Line: l, Request: r}

	if head, _ := l.Desk.Queue.Head(r.LockID); head == nil || r.Front {
		a, answered := l.firstWithin(waiting, r)

		switch {
		case !answered, a.err != nil && store.Passing(a.err):
			w.told.unanswered = a.err
			w.told.obstacle(a.err)
		case a.err != nil && a.res.Verdict == store.Busy:
			w.told.saw(a.res)
		case a.err == nil && w.isLate(a.res):
			l.Desk.Aside(func() { l.giveBack(r, a.res) })
		default:
			return a.res, w.limited(ctx, waiting, a.err)
		}
	}

	observed, end := l.Observe(waiting, true, r.LockID, r.locks())

	res, err := w.inLine(observed)
	err = w.limited(ctx, waiting, err)

	end(res, err)

	return res, err
}

// inLine is the time in line. It returns a grant, or why there is none.
func (w *waiter) inLine(ctx context.Context) (store.Result, error) {
	w.join(w.told.busy)

	w.Listener.Use()
	defer w.Listener.Done()

	var (
		look = time.NewTimer(0)
		next time.Time // when look fires
	)
	defer look.Stop()

	sleep := func(d time.Duration) {
		next = time.Now().Add(d)
		w.place.SleepUntil(next)
		look.Reset(d)
	}
	sleep(pause.Jitter(idle, 2))

	tell := time.NewTimer(noticeAfter)
	defer tell.Stop()

	for joined := time.Now(); ; {
		// Asleep.
		select {
		case res := <-w.place.Granted():
			return res, nil
		case <-ctx.Done():
			return store.Result{}, w.leave(beside.Err(ctx))
		case <-w.Desk.Context().Done():
			return store.Result{}, w.leave(context.Cause(w.Desk.Context()))
		case <-w.place.Woken():
		case <-w.place.Hinted():
			// It is zero if the time was taken by an earlier hint.
			if at := w.place.AskAt(); !at.IsZero() && (at.Before(next) || w.place.Later()) {
				sleep(time.Until(at))
			}

			continue
		case <-tell.C:
			tell.Reset(noticeEvery)
			w.tellWaiting(ctx, w.LockID, joined)

			continue
		case <-look.C:
			if !w.place.IsHead() {
				sleep(pause.Jitter(idle, 2))

				continue
			}
		}

		// Asking. If releases are heard by now, a release after this request will be.
		heard := w.Listener.Proven()

		if rest := w.Desk.Queue.Rests(w.LockID); rest > 0 && !heard {
			sleep(rest)

			continue
		}

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

		// It may have left no mark: then no release will be heard.
		heard = heard && !w.Desk.Queue.MarkDue(w.LockID, stale, heard)

		sleep(w.next(a, heard))

		if a.err == nil && w.isElsewhere(a.res) {
			w.place.Leave()
			w.join(&a.res)
		}
	}
}

// join takes a place in the line of the lock in the way, if that is known. The head of a line asks at once.
func (w *waiter) join(busy *store.Result) {
	if busy != nil && w.isElsewhere(*busy) {
		w.LockID = busy.LockID
	}

	switch {
	case w.Special == nil:
		w.place = w.Desk.Queue.Join(w.LockID, w.TTL)
	case w.Special.Permits() > 0:
		w.place = w.Desk.Queue.JoinSlot(w.LockID, w.TTL, w.Special.Permits(), w.Front)
	default:
		w.place = w.Desk.Queue.JoinSpecial(w.LockID)
	}
}

// isElsewhere reports whether another lock was in the way of a special request than the one in whose line it
// stands.
func (w *waiter) isElsewhere(busy store.Result) bool {
	return busy.LockID != "" && busy.LockID != w.LockID
}

// ask makes one claim, and leaves a mark if this process left none since stale. It is not answered if ctx or
// the Locker ends first.
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
	request, err := w.send(ctx, w.Request, func(ctx context.Context) answer { return w.claim(ctx, mark) })
	if err != nil {
		return answer{}, false
	}

	select {
	case a := <-request.Result():
		if a.err == nil {
			w.note(a.res, heard)
		}

		if a.granted() {
			if delivered, ok := w.place.Leave(); ok {
				a.res = w.newer(a.res, delivered)
			}
		}

		return a, true
	case delivered := <-w.place.Granted():
		if w.Special != nil {
			w.Desk.Aside(func() { w.outrun(request, heard) })

			return answer{res: delivered}, true
		}

		// Mostly the answer is on its way. If it hangs, what it brings comes after this tenure.
		if a, ok := request.within(answerWithin); ok && a.granted() {
			delivered = w.newer(a.res, delivered)
		}

		return answer{res: delivered}, true
	case <-ctx.Done():
		if took := time.Since(sent); took >= slow {
			w.told.inTheWay = fmt.Errorf("pglocker: the database has not answered for %s", took.Round(time.Second/10))
		}
	case <-w.Desk.Context().Done():
	}

	request.leave()

	return answer{}, false
}

// outrun takes the answer to the request of a waiter that was handed a slot meanwhile. It is of use to the
// next head, which doesn't ask as long as this one is under way.
func (w *waiter) outrun(request *request, heard bool) {
	handover.EndSoon(request.ctx, request.cancel)

	a := <-request.Result()
	if a.err == nil {
		w.note(a.res, heard)
	}

	if a.granted() {
		w.giveBack(w.Request, a.res)
	} else {
		w.Desk.Queue.WakeAfter(w.LockID, w.next(a, heard && !w.Desk.Queue.MarkDue(w.LockID, time.Now().Add(-markEvery), heard)))
	}
}

// newer is that of two grants which the waiter uses. The older one of a lock is over. That of another slot
// isn't, and is returned. The next head asks: it wasn't woken by the delivery, and gets no answer from here.
func (w *waiter) newer(a, b store.Result) store.Result {
	if a.Row.Generation < b.Row.Generation {
		a, b = b, a
	}

	if w.Special != nil {
		w.Desk.Queue.Wake(w.LockID)
		w.Desk.Aside(func() { w.giveBack(w.Request, b) })
	}

	return a
}

// claim sends one claim. A late grant is returned, and the waiter goes on.
func (w *waiter) claim(ctx context.Context, mark store.Mark) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, beside.Attempt(w.TTL))
	defer cancel()

	if w.Special != nil {
		a.res, a.err = w.Special.Ask(ctx, w.LockID, mark)
	} else {
		a.res, a.err = w.Desk.Store.Claim(ctx, w.LockID, w.Desk.Names.Next(), w.TTL, w.Desk.Margin(w.TTL), mark)
		w.Desk.Settle(w.LockID, a.res.Stray, w.TTL)
	}

	if res, r := a.res, w.Request; a.granted() && w.isLate(res) {
		w.Desk.Aside(func() { w.giveBack(r, res) })

		return answer{err: ErrLate}
	}

	return a
}

func (w *waiter) isLate(res store.Result) bool { return w.Desk.Term(res, w.TTL).Left(time.Now()) <= 0 }

// note keeps what an answer tells about the lock and about other processes.
func (w *waiter) note(res store.Result, heard bool) {
	if w.isElsewhere(res) {
		w.told.saw(res)

		return
	}

	w.Desk.Queue.FoundMark(w.LockID, res.Mark, res.Row.Now)

	if res.Verdict == store.Granted {
		if store.GateOf(w.LockID) != "" {
			w.Desk.Queue.WonSlot(w.LockID)
		} else {
			w.Desk.Queue.Won(w.LockID)
		}

		return
	}

	if rival := handover.LockerOf(res.Row.Owner); rival != "" && rival != w.Desk.Names.Locker && res.Row.Held() {
		w.Desk.Queue.Lost(w.LockID, rival)
	}

	if res.Marked {
		w.Desk.Queue.Marked(w.LockID, heard)
	}

	w.told.saw(res)
}

// next is how long the head sleeps. If it hears releases, it asks when the lease ends and when its mark is to
// be renewed. Otherwise it polls, at first soon and then less often.
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

	poll = pause.Jitter(poll, 2)

	if held {
		poll = min(poll, a.res.Row.Remaining()+handover.PollLate)
	}

	if a.res.Again > 0 {
		poll = min(poll, a.res.Again)
	}

	return poll
}

// leave leaves the line, returns a grant that came too late, and adds to err what the waiter knows. If it was
// handed a slot while it asked, the next head asks: the answer comes to nobody.
func (w *waiter) leave(err error) error {
	w.place.SleepUntil(time.Now())

	if res, ok := w.place.Leave(); ok {
		w.Desk.Aside(func() { w.giveBack(w.Request, res) })
	}

	if !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}

	if known := cmp.Or(w.lastHeld(), w.told.inTheWay); known != nil {
		return fmt.Errorf("%w: %w", err, known)
	}

	return err
}
