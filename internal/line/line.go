// Package line takes locks: at once, or as a waiter. The waiters for one lock stand in a line (waitqueue),
// and only its head asks the database.
//
//	Acquire --> first request ------------------------------------> granted, refused
//	                |  held, unanswered, or others wait here
//	                v
//	             asleep <--- held, unanswered, late --+
//	                |                                 |
//	                +--- woken, as the head -----> asking ---------> granted, refused
//	                |                                 |
//	                +--- handed over -----------------+------------> granted
//	                +--- ctx or the Locker ends ------+------------> left
//
// A waiter that leaves, or is handed the lock, leaves its request behind for a second. What that still brings
// is returned (outlive).
//
// The head is woken
//
//   - when it joins an empty line, or the head before it has left (waitqueue.Join, Leave);
//   - when a holder in this process releases or loses the lock, or a grant that nobody wants is returned
//     (handover); and when the lease ends that this process failed to release (Desk.WakeAt);
//   - by a notification (waitqueue.Released), a millisecond later if it is another process's turn;
//   - when the listener begins or ceases to hear (waitqueue.WakeAll);
//   - by its timer: the end of the lease, its next mark, or its next poll (waiter.next).
//
// Other waiters are only handed the lock, or leave. So is a head that became it by a hand-over, until it is
// woken: the lock is held here.
//
// A special request (Special) wants several locks, say. It stands in the line of one that is in its way, and
// moves to another line when another lock is. It is handed no lock: as the head it is woken, and asks. One that
// wants one slot of a family stands at the gate, and is handed a slot that is released here. Another slot may be
// free then. So the new head asks when the one before it would have (waitqueue.Deliver).
package line

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/listen"
	"github.com/ismurov/pglocker/internal/store"
)

// Line serves all waiters of one Locker.
type Line struct {
	Desk     *handover.Desk
	Listener *listen.Listener
	// Observe is called before a request that doesn't wait, or the time in line, and what it returns after
	// it. locks is how many locks are asked for.
	Observe func(ctx context.Context, waits bool, lockID string, locks int) (context.Context, func(store.Result, error))
	// Held is the error of a lock that another holds: the database showed row some time ago.
	Held func(lockID string, row store.Row, ago time.Duration) error

	notices notices
}

// Request is what is asked for.
type Request struct {
	// LockID is the lock, or the one in whose line a special request stands first.
	LockID string
	TTL    time.Duration
	// Wait is how long to wait for the lock if another holds it. The longest is until ctx ends.
	Wait time.Duration
	// Special is what is asked for if it isn't the lock LockID alone.
	Special Special
	// Front: it wants one slot, and doesn't wait for the waiters that came before. They may wait for a holder
	// that waits for this.
	Front bool
}

// Special is a request for something else than one lock.
type Special interface {
	// Ask asks once. A grant's Result has Grants, and as Row the one whose lease ends first. A refusal's is
	// Busy, and LockID and Row are the lock in the way: the caller waits in its line, and asks again when its
	// lease ends. If that lock is the one in whose line the caller stands, Ask leaves the mark on it, unless
	// the mark's time is zero, and sets Marked. A caller that stands in no line has "". Ask settles what a lost
	// reply may have brought.
	Ask(ctx context.Context, line string, mark store.Mark) (store.Result, error)
	// Return returns a grant that nobody wants. It may take as long as the lease.
	Return(res store.Result)
	// Held is as [Line.Held].
	Held(lockID string, row store.Row, ago time.Duration) error
	// Locks is how many locks are asked for.
	Locks() int
	// Permits is above 0 if one slot of a family is asked for: how many of its slots may be held. Such a waiter
	// is handed slots.
	Permits() int
}

// ErrLate is why a grant is none to work under: it took as long as its lease. It was returned.
var ErrLate = errors.New("the grant took as long as its lease")

// Acquire takes the lock, and waits for it as the request says. The grant can be believed in for the term.
func (l *Line) Acquire(ctx context.Context, r Request) (res store.Result, term keepalive.Term, err error) {
	ask := l.first
	if r.Wait > 0 {
		ask = l.wait
	}

	if res, err = ask(ctx, r); err != nil {
		return res, term, err
	}

	term = l.Desk.Term(res, r.TTL)
	if term.Left(time.Now()) <= 0 {
		l.giveBack(r, res)

		return res, term, ErrLate
	}

	return res, term, nil
}

// Ask asks once. A grant whose reply is lost is returned in the background.
func (l *Line) Ask(ctx context.Context, r Request) (res store.Result, err error) {
	ctx, end := l.Observe(ctx, false, r.LockID, r.locks())

	if r.Special != nil {
		res, err = r.Special.Ask(ctx, "", store.Mark{})
	} else {
		res, err = l.Desk.Store.Acquire(ctx, r.LockID, l.Desk.Names.Next(), r.TTL, l.Desk.Margin(r.TTL))
		l.Desk.Settle(r.LockID, res.Stray, r.TTL)
	}

	if err == nil && res.Verdict == store.Busy {
		err = l.held(r, res, 0)
	}

	end(res, err)

	return res, err
}

func (r *Request) locks() int {
	if r.Special != nil {
		return r.Special.Locks()
	}

	return 1
}

// giveBack returns a grant that nobody wants.
func (l *Line) giveBack(r Request, res store.Result) {
	if r.Special != nil {
		r.Special.Return(res)
	} else {
		l.Desk.Return(r.LockID, res, r.TTL)
	}
}

// held is the error of a request that another's lock was in the way of.
func (l *Line) held(r Request, busy store.Result, ago time.Duration) error {
	if r.Special != nil {
		return r.Special.Held(cmp.Or(busy.LockID, r.LockID), busy.Row, ago)
	}

	return l.Held(r.LockID, busy.Row, ago)
}

// first is Ask for a caller that keeps the lock or goes on to wait. On a table without owners its request
// outlives a caller that leaves, since a stray grant can't be found.
func (l *Line) first(ctx context.Context, r Request) (store.Result, error) {
	if l.Desk.Store.Full() || ctx.Err() != nil {
		return l.Ask(ctx, r)
	}

	request, err := l.send(ctx, r, func(ctx context.Context) (a answer) {
		a.res, a.err = l.Ask(ctx, r)

		return a
	})
	if err != nil {
		return store.Result{}, err
	}

	select {
	case a := <-request.Result():
		return a.res, a.err
	case <-ctx.Done():
	}

	// A request that waits for a connection ends with ctx as well, and its error says what it waited for.
	if request.sent() {
		request.leave()
	} else if a, ok := request.within(answerWithin); ok {
		return a.res, a.err
	}

	return store.Result{}, fmt.Errorf("%w: %w", store.ErrUnknownOutcome, beside.Err(ctx))
}

// firstWithin is first for a caller that can wait. If it takes longer than [beside.AttemptMax], it is not
// answered: the connection may be dead, and a waiter asks again over another.
func (l *Line) firstWithin(ctx context.Context, r Request) (a answer, answered bool) {
	attempt, cancel := context.WithTimeout(ctx, beside.AttemptMax)
	defer cancel()

	// Close waits for no longer than for a waiter.
	attempt, stop := l.Desk.UntilClosed(attempt)
	defer stop()

	a.res, a.err = l.first(attempt, r)

	switch {
	case a.err == nil || a.res.Verdict == store.Busy || attempt.Err() == nil || ctx.Err() != nil:
		return a, true
	case l.Desk.Context().Err() != nil:
		a.err = fmt.Errorf("%w: %w", context.Cause(l.Desk.Context()), a.err)

		return a, true
	}

	return a, false
}
