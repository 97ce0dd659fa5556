package keepalive

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// What if a connection hangs, with a renewal on it or before it is open?
//
//  1. When the patience with the attempt ends, endPatience doubles it: its leases are due again.
//     A more urgent lease that is due meanwhile cuts the patience short: hurry.
//  2. start begins the next attempt, over a connection of its own. The doubled one goes on, and
//     its answer counts whenever it comes: finish. Leases of which it has told before, since they are on another server
//     that has answered, aren't due again: told.
//  3. If there are attemptLimit attempts, mayStart cancels the oldest for the next.
//  4. send cancels a request when the terms of all its leases are over, but not within
//     AttemptMin. It opens a connection to the end, for later attempts.
//  5. A lease whose term ends meanwhile is lost at that moment: endTerms.
//  6. When nothing is held any more, rest cancels what is left.

const (
	// attemptLimit bounds the attempts under way at once.
	attemptLimit = 4
	// AttemptMin is how long a statement that was sent is not given up, even if its leases are
	// over before. Giving it up costs a connection, here and in a pooler, and opening the next
	// one is slow where answers are slow (docs/adr/0006).
	AttemptMin = 500 * time.Millisecond
	// openWithin is the same for an attempt that opens its connection. If each were cancelled
	// for the next before the server lets it in, none would ever be open.
	openWithin = 2 * time.Second
)

// ErrPanic is the error of an attempt that panicked.
var ErrPanic = errors.New("pglocker: panic in a renewal")

// Session renews leases over one connection. One attempt at a time uses it. After an error it
// is closed, unless it has renewed leases before and the error [store.Divides].
type Session interface {
	// Connect opens the connection. It is called once, before anything else.
	Connect(ctx context.Context) error
	// Renew answers every renewal, in order. sent is the moment before the statement went out. tell may be called with
	// some of the answers before.
	Renew(ctx context.Context, renewals []store.Renewal, tell store.RenewedFunc) (results []store.RenewResult, sent time.Time, err error)
	Close()
}

type link struct {
	Session
	proven bool // it has renewed leases
}

// attempt is one statement on its way.
type attempt struct {
	leases []*Lease // nil for one whose answer is there
	began  time.Time
	cancel context.CancelFunc
	link   *link // for the attempt's goroutine alone; nil until there is a session
	// overdue is when the patience ends. doubled: it has ended.
	overdue time.Time
	doubled bool
	// opens: the connection is being opened, else the request is under way. since: from when.
	opens  bool
	since  time.Time
	gaveUp bool // the Renewer has ended it without an answer
}

// mayStart reports whether an attempt may begin. If there are too many, it cancels the oldest
// that has had its time, whose end wakes the loop.
func (r *Renewer) mayStart(now time.Time) bool {
	if r.current != nil {
		return false
	}

	if len(r.attempts) < attemptLimit {
		return true
	}

	var oldest *attempt

	for a := range r.attempts {
		least := AttemptMin
		if a.opens {
			least = openWithin
		}

		if now.Sub(a.since) >= least && (oldest == nil || a.overdue.Before(oldest.overdue)) {
			oldest = a
		}
	}

	if oldest != nil {
		oldest.cancel()
	}

	return false
}

// hurry shortens the patience with the current attempt to what the most urgent lease that is
// due can wait, and returns that.
func (r *Renewer) hurry(now time.Time) time.Duration {
	hurry := r.due.first().term.hurry(now)

	if a := r.current; a != nil && now.Add(hurry).Before(a.overdue) {
		a.overdue = now.Add(hurry)
	}

	return hurry
}

// endPatience doubles the current attempt when its time has come. It returns how long that is.
func (r *Renewer) endPatience(now time.Time) time.Duration {
	a := r.current
	if a == nil {
		return clockCheck
	}

	if left := a.overdue.Sub(now); left > 0 {
		return left
	}

	a.doubled = true
	r.current = nil

	for _, l := range a.leases {
		if l == nil || l.attempt != a {
			continue // it was answered, or removed
		}

		r.part(l)

		if !l.term.Sent.After(a.began) { // no attempt beside this one has renewed it since
			r.trouble(l, now)
		}

		l.attempt = nil
		r.wait(l, now)
	}

	r.report(now)

	return clockCheck
}

// start begins an attempt for leases that it moves to the state asked, and returns its patience.
func (r *Renewer) start(ctx context.Context, now time.Time) (patience time.Duration) {
	var (
		leases   = sorted(r.batch(now))
		renewals = make([]store.Renewal, len(leases))
		left     time.Duration
	)

	ctx, cancel := context.WithCancel(ctx)
	a := &attempt{leases: leases, began: now, cancel: cancel, link: r.idle, opens: r.idle == nil, since: now}
	patience = leases[0].term.patience(now)

	for i, l := range leases {
		left = max(left, l.term.Left(now))
		patience = min(patience, l.term.patience(now))
		renewals[i] = store.Renewal{LockID: l.LockID, Generation: l.Generation, TTL: l.term.TTL, Left: l.term.Left(now)}

		l.attempt, l.alone = a, l.underWay == 0 && l.asked == nil
		l.underWay++

		if l.asked == nil {
			l.asked = a
		}
	}

	a.overdue = now.Add(patience)
	r.idle, r.current = nil, a
	r.attempts[a] = struct{}{}

	r.goroutines.Go(func() {
		defer cancel()

		r.finish(a, r.send(ctx, a, renewals, now.Add(left)))
	})

	return patience
}

// send sends the renewals, unless the last of their terms has ended at end.
func (r *Renewer) send(ctx context.Context, a *attempt, renewals []store.Renewal, end time.Time) (got answer) {
	defer func() { // a panic of the driver, or of a hook in it, costs the attempt
		if value := recover(); value != nil {
			got = answer{err: fmt.Errorf("%w: %v\n%s", ErrPanic, value, debug.Stack())}
		}
	}()

	if a.link == nil {
		a.link = &link{Session: r.open()}

		if err := a.link.Connect(ctx); err != nil {
			return answer{err: err, ended: ctx.Err() != nil}
		}

		r.mu.Lock()
		a.opens, a.since = false, time.Now()
		r.mu.Unlock()
	}

	left := time.Until(end)
	if left <= 0 {
		return answer{err: context.DeadlineExceeded, ended: true, unsent: true}
	}

	ctx, done := context.WithTimeout(ctx, max(left, AttemptMin))
	defer done()

	tell := func(places []int, results []store.RenewResult, sent time.Time) { r.told(a, places, results, sent) }
	results, sent, err := a.link.Renew(ctx, renewals, tell)

	return answer{results: results, sent: sent, err: err, ended: ctx.Err() != nil}
}
