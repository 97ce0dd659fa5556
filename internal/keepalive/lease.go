package keepalive

import (
	"time"

	"github.com/ismurov/pglocker/internal/pause"
)

// Holder is told of a lease, by goroutines of the Renewer. Its methods must return at once.
type Holder interface {
	// Renewed comes after each renewal, with the new expiry and with what was left of the term before.
	Renewed(expiresAt time.Time, left time.Duration)
	// Lost comes once when the lease is lost, unless it was removed before.
	Lost(loss Loss)
	// Locked comes after each attempt that finds the row locked by another transaction when less than half
	// of the term is left.
	Locked()
}

// Lease is one held lock as the [Renewer] sees it. The exported fields must not change after
// Add.
type Lease struct {
	LockID     string
	Generation int64
	// Interval is the time from one renewal to the next, shorter if the term needs that.
	Interval time.Duration
	// RenewNow asks for the first renewal at once.
	RenewNow bool
	Holder   Holder

	// Renewer.mu guards the rest.

	held bool
	term Term
	// cohort is nil for a lease by itself. rank is its place there.
	cohort *cohort
	rank   int
	// attempt has the lease in the state asked. It is nil in the other states.
	attempt *attempt
	// underWay is how many attempts with the lease are. alone: none was when attempt began, and
	// the one before had an answer.
	underWay int
	alone    bool
	// party is not 0 after the server has refused a statement with the lease in it. The lease
	// then goes with its party alone, until it is renewed.
	party uint64

	// The rest is what has happened since the last renewal.

	failures int      // attempts without success
	lastErr  error    // of the last answer
	locked   bool     // Cause.Locked
	asked    *attempt // the first since the last answer
	troubled bool     // Renewer.troubled counts the lease

	// moments and places are those in the queues. Place 0 is none. Only the first of a cohort has some.
	moments [orders]time.Duration
	places  [orders]int
}

func (l *Lease) interval() time.Duration { return pause.Jitter(l.term.interval(l.Interval), 10) }

func (l *Lease) retryDelay() time.Duration { return pause.Jitter(l.term.retry(l.failures), 2) }

// end is when the lease's term ends, as a moment, if both clocks go on at the same rate.
func (r *Renewer) end(l *Lease, now time.Time) time.Duration {
	return now.Sub(r.began) + l.term.Left(now)
}

// wait moves the lease to the state waiting, until next.
func (r *Renewer) wait(l *Lease, next time.Time) {
	moment := next.Sub(r.began)
	early := moment

	if l.party == 0 {
		early -= min(l.Interval, l.term.lease()) / 10
	}

	r.due.drop(l)
	r.next.put(l, moment)
	r.early.put(l, early)
}

// fallDue moves leases to the state due. It returns how long it is until the next moment.
func (r *Renewer) fallDue(now time.Time) time.Duration {
	for l := r.next.first(); l != nil; l = r.next.first() {
		if left := l.moments[byNext] - now.Sub(r.began); left > 0 {
			return left
		}

		r.take(l)
		r.due.put(l, l.moments[byEnd])
	}

	return clockCheck
}

// take takes a lease out of the queues of its state.
func (r *Renewer) take(l *Lease) {
	r.next.drop(l)
	r.early.drop(l)
	r.due.drop(l)
}

// drop moves the lease to the state over.
func (r *Renewer) drop(l *Lease) {
	l.held, l.attempt = false, nil
	r.held--

	if r.added == l {
		r.added = nil
	}

	r.leave(l)
	r.take(l)
	r.ends.drop(l)
	r.calm(l)
}

func (r *Renewer) lose(l *Lease, gone bool, now time.Time) {
	loss := Loss{Gone: gone, Cause: l.cause(now)}
	r.losses = append(r.losses, func() { l.Holder.Lost(loss) })
	r.drop(l)
	r.endsAt = now.Sub(r.began) + linger
}
