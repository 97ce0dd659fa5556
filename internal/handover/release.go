package handover

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/pause"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

const (
	// MaxLocalRun bounds the hand-overs in a row while another process waits, or might.
	MaxLocalRun = 16
	// richRuns is how much shorter that is for a process that holds more than its share of the slots.
	richRuns = 8
	// MarkEvery is how often a process with waiters renews its mark.
	MarkEvery = 4 * time.Second
	// PollMax is how long a waiter that polls sleeps at most.
	PollMax = 400 * time.Millisecond
	// PollLate is how long after the known end of a lease a waiter asks: the answer was under way for a
	// while.
	PollLate = 2 * time.Millisecond
)

// Answers to a request that names a generation.
var (
	ErrWrongGeneration = errors.New("pglocker: wrong generation")
	ErrLockNotFound    = errors.New("pglocker: lock not found")
)

// VerdictError is the error of a verdict.
func VerdictError(v store.Verdict) error {
	switch v {
	case store.WrongGeneration:
		return ErrWrongGeneration
	case store.NotFound:
		return ErrLockNotFound
	}

	return nil
}

// Tenure is what is released: the lock, as long as its state is this one.
type Tenure struct {
	LockID    string
	State     store.State
	HeldUntil time.Time // the end of a minimum hold, if there is one
	// Gate is the lock in whose line the waiters for this one stand, if that is another.
	Gate string
	// Awaited: Wait is not called before Release has returned.
	Awaited bool

	handedOver bool // to a waiter that has left
	doubt      bool // a reply to its release was lost
	apart      bool // it is a slot that isn't handed over any more
}

// hold is what is left of its minimum hold.
func (t *Tenure) hold() time.Duration { return max(time.Until(t.HeldUntil), 0) }

// line is the lock in whose line the waiters for it stand.
func (t *Tenure) line() string { return cmp.Or(t.Gate, t.LockID) }

// Release releases the lock, or hands it over. It asks again where there was no answer, until the lease is
// over. If ctx ends before that, Release returns, and goes on in the background.
func (d *Desk) Release(ctx context.Context, t Tenure, until time.Time) error {
	err := d.release(ctx, &t, until)

	if err == nil || ctx.Err() == nil || isGone(err) || !store.Transient(err) {
		return err
	}

	d.goOn(t.Awaited, func() {
		_ = d.release(context.WithoutCancel(ctx), &t, until) // the caller was told that it isn't known
	})

	return err
}

// goOn runs a job on a goroutine of its own, unless the Desk is closed and the job not awaited.
func (d *Desk) goOn(awaited bool, run func()) {
	end, err := d.Begin()
	if err != nil && awaited {
		d.jobs.Add(1)

		end, err = d.jobDone, nil
	}

	if err == nil {
		go func() {
			defer end()
			run()
		}()
	}
}

func (d *Desk) release(ctx context.Context, t *Tenure, until time.Time) error {
	var (
		left    = time.Until(until)
		caller  = d.Beside.Caller()
		failing bool
	)

	defer caller.Done()
	defer func() {
		if failing && d.failing.Add(-1) == 0 {
			d.OnTrouble(Trouble{})
		}
	}()

	err := beside.ErrOver

	for time.Until(until) > 0 {
		err = caller.Ask(ctx, until, left/4, func(ctx context.Context, st *store.Store) error {
			return d.ReleaseOnce(ctx, st, t)
		})
		if err == nil {
			return nil
		}

		// The waiters here have not asked the database, since the lock was held here.
		if isGone(err) {
			d.Queue.Wake(t.line())

			// Only a grant that nobody took is gone, or a request whose reply was lost was carried out.
			if t.handedOver || t.doubt && errors.Is(err, ErrWrongGeneration) {
				return nil
			}

			return err
		}

		if !store.Transient(err) {
			break
		}

		t.doubt = t.doubt || errors.Is(err, store.ErrUnknownOutcome)

		if !failing {
			failing = true

			d.failing.Add(1)
		}

		d.OnTrouble(Trouble{Locks: int(d.failing.Load()), LockID: t.LockID, Token: t.State.Generation, Err: err})

		limit := max(min(left/20, time.Second, time.Until(until)), 2*time.Millisecond)
		if !pause.Sleep(ctx, pause.Jitter(limit, 2)) {
			break
		}
	}

	d.WakeAt(t.line(), until)

	return err
}

// WakeAt makes the head of the waiters here ask when a lease is over.
func (d *Desk) WakeAt(lockID string, leaseEnd time.Time) {
	d.Queue.WakeAfter(lockID, time.Until(leaseEnd)+PollLate)
}

// ReleaseOnce is one attempt of Release: it hands a tenure over to the head here, or releases it for all. If
// the waiter leaves while its grant is on the way, that grant becomes the tenure.
func (d *Desk) ReleaseOnce(ctx context.Context, st *store.Store, t *Tenure) error {
	var (
		head *waitqueue.Waiter
		run  waitqueue.Run
	)

	for {
		if head, run = d.next(t); head == nil {
			break
		}

		res, err := d.handOver(ctx, st, t, head, run.Others)
		if err != nil {
			return err
		}

		if t.apart {
			break
		}

		t.State, t.handedOver = store.State{Generation: res.Row.Generation}, true

		if d.Term(res, head.TTL).Left(time.Now()) > 0 && d.Queue.Deliver(head, res) {
			d.renewMark(t)
			// The next holder's work comes first.
			runtime.Gosched()

			return nil
		}

		d.Queue.Withdraw(head) // it may be there still: the lease was over
	}

	over := d.endRun(t, run)

	res, err := st.Release(ctx, t.LockID, t.State, t.hold())
	d.tell(t, over, res.Notified)

	if err != nil {
		return err
	}

	return VerdictError(res.Verdict)
}

// handOver is one attempt to hand a tenure over. Where a slot is refused, it is apart from then on, and released
// for all: too many may be held, or its gate is locked.
func (d *Desk) handOver(ctx context.Context, st *store.Store, t *Tenure, head *waitqueue.Waiter, others bool) (res store.Result, err error) {
	owner, margin := d.Names.Next(), d.Margin(head.TTL)

	if t.Gate == "" {
		res, err = st.HandOver(ctx, t.LockID, t.State.Generation, owner, head.TTL, margin)
		if err == nil {
			err = VerdictError(res.Verdict)
		}

		d.Queue.FoundMark(t.LockID, res.Row.ContendedUntil, res.Row.Now)
	} else {
		res, err = st.HandOverSlot(ctx, t.LockID, t.State.Generation, owner, head.TTL, margin, head.Permits, others)
		refused := err != nil || res.Verdict != store.Granted
		unknown := errors.Is(err, store.ErrUnknownOutcome)
		// It has changed nothing. It is made again, over another connection if the pool gave none.
		cancelled := errors.Is(err, context.Canceled) && !unknown && len(res.Stray) == 0
		t.apart = refused && !cancelled

		if refused {
			d.Queue.Withdraw(head)
		}

		if t.apart && !unknown {
			err, t.doubt = nil, t.doubt || len(res.Stray) > 0
		}

		d.Queue.FoundMark(t.Gate, res.Mark, res.Row.Now)
	}

	d.Settle(t.line(), res.Stray, head.TTL)

	return res, err
}

// renewMark wakes the head at the gate of a slot that was handed over, if the mark is due. It is no head of a
// lock, which is held here: others may release another slot.
func (d *Desk) renewMark(t *Tenure) {
	if t.Gate != "" && d.Queue.MarkDue(t.Gate, time.Now().Add(-MarkEvery), d.Heard()) {
		d.Queue.Wake(t.Gate)
	}
}

// next is the head here if the tenure is handed over to it, else nil. run is that of the line. Several slots
// are handed over at a time: each is promised to another waiter.
func (d *Desk) next(t *Tenure) (head *waitqueue.Waiter, run waitqueue.Run) {
	head, run = d.Queue.Head(t.line())

	// A closed Locker's waiters are leaving. A lock that may have been free isn't handed over.
	if head == nil || head.Special || d.isOver(run) || t.hold() > 0 || d.ctx.Err() != nil || d.Store.Dated(t.State) {
		return nil, run
	}

	if t.Gate != "" {
		head = nil
		if !t.apart && d.Store.Full() && store.IsSlot(t.LockID) {
			head = d.Queue.Promise(t.Gate)
		}
	}

	return head, run
}

// endRun ends a run, and reports whether it was long enough. A waiter at a gate that isn't handed a slot is
// woken: such a release counts as a hand-over.
func (d *Desk) endRun(t *Tenure, run waitqueue.Run) (over bool) {
	over = d.isOver(run)

	if t.Gate != "" && !over {
		d.Queue.Extend(t.Gate)
	} else {
		d.Queue.EndRun(t.line())
	}

	return over
}

// tell tells the waiters here of a release for all. over: others should ask first.
func (d *Desk) tell(t *Tenure, over, notified bool) {
	switch heard := d.Heard(); {
	case !heard && (over || t.Gate != "" && d.Queue.Rests(t.Gate) > 0):
		// Others poll, and ask first.
		rest := PollMax + pause.Jitter(PollMax, 2)
		if over {
			d.Queue.Rest(t.line(), rest)
		}

		// The head doesn't poll if it became that by a hand-over.
		d.Queue.WakeAfter(t.line(), rest)
	case !over || heard && !notified:
		d.Queue.Wake(t.line())
	} // else the waiters here hear of it as all others do
}

// isOver reports whether a lock has been handed over here for long enough, given that others may wait. To
// processes that poll, the lock must lie free for a while, so turns are longer among them.
func (d *Desk) isOver(run waitqueue.Run) bool {
	othersMayWait := run.Others || !d.Store.Notifies() // without marks nobody can say so

	limit := d.LocalRun
	if run.Rich && d.Heard() {
		limit /= richRuns
	}

	if !othersMayWait || run.Length < limit {
		return false
	}

	return d.Heard() || time.Since(run.Began) >= PollMax
}

// ReturnAside is Return in the background.
func (d *Desk) ReturnAside(lockID string, res store.Result, ttl time.Duration) {
	d.Aside(func() { d.Return(lockID, res, ttl) })
}

// Return returns a grant that nobody wants. It tries until the lease is over, or for [Grace] once the Desk is
// closed.
func (d *Desk) Return(lockID string, res store.Result, ttl time.Duration) {
	ctx, cancel := d.UntilClosed(context.Background())
	defer cancel()

	until := res.Sent.Add(ttl)
	t := Tenure{LockID: lockID, State: store.State{Generation: res.Row.Generation}, Gate: store.GateOf(lockID)}
	if time.Until(until) <= 0 {
		d.Queue.Wake(t.line())

		return
	}

	if err := d.release(ctx, &t, until); err != nil {
		d.Log.Warn("pglocker: a late grant was not returned", "lock", lockID, "token", t.State.Generation, "error", err)
	}
}
