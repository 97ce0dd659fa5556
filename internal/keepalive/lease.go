package keepalive

import (
	"math/rand/v2"
	"time"
)

// Lease is one held lock as the [Renewer] sees it. Fields that are set by the
// maker must not change after Add.
type Lease struct {
	LockID     string
	Generation int64
	// Interval is how long after a renewal the next one is wanted. It is cut to
	// what the term allows, see interval.
	Interval time.Duration
	// RenewNow asks for the first renewal at once.
	RenewNow bool
	// OnRenewed is called after each renewal with the new expiry.
	OnRenewed func(expiresAt time.Time)
	// OnLost is called once, when the term has passed or the database says that
	// the lease is gone, unless the lease was removed before. All callbacks are
	// called from goroutines of the renewer and must return at once.
	OnLost func(Loss)
	// OnLocked is called, if it isn't nil, when another transaction has had the row
	// locked for so long that less than half of the term is left. It may be called again
	// with each attempt.
	OnLocked func()

	// The rest is guarded by Renewer.mu.

	held bool
	term Term
	// next is when the next attempt is due.
	next time.Time
	// moments and places are those in the queues; a place counts from 1, and 0 is none.
	moments [orders]time.Duration
	places  [orders]int
	// attempt is the one that this lease is part of now, nil between attempts.
	attempt *attempt
	// party, if it isn't 0, keeps the lease apart from those of other parties: the server
	// has refused a statement that it was part of. It is renewed together with its party
	// until a renewal succeeds.
	party uint64

	// What has happened since the last renewal.

	// failures counts attempts without success, and lastErr is the error of the last one
	// that brought one.
	failures int
	lastErr  error
	// locked: the last answer was that another transaction has the row locked.
	locked bool
	// asked is the first attempt whose answer is still awaited, or didn't come.
	asked *attempt
	// troubled: it is counted in Renewer.troubled.
	troubled bool
}

// Loss says why a lease can't be trusted any more.
type Loss struct {
	// Gone: the database says so. Otherwise the local term has passed.
	Gone bool
	// Cause is what has kept it from being renewed.
	Cause
}

// Cause is what keeps leases from being renewed. It may be none of these.
type Cause struct {
	// Err is the error of the last failed renewal. It is never that of a context which
	// the renewer ended itself; a driver may have such errors of its own.
	Err error
	// Locked: another transaction had the row locked when it was last asked for.
	Locked bool
	// Unanswered is for how long the server has not answered. With Opening it is for how
	// long no connection could be opened.
	Unanswered time.Duration
	Opening    bool
	// Since is how long ago the last acknowledged grant or renewal was sent.
	Since time.Duration
	// Short is how much less than was asked for the row showed then.
	Short time.Duration
}

// Trouble is told when a renewal fails, or when another is sent beside it for want of an answer.
type Trouble struct {
	// Locks is how many leases are in trouble: zero when the last of them was renewed, lost
	// or removed.
	Locks int
	// LockID, Generation and Left are of the one that is lost next, if nothing changes:
	// its term ends after Left.
	LockID     string
	Generation int64
	Left       time.Duration
	Cause
}

// interval is the time from one renewal to the next: what was asked for, but
// never so late that less than a third of the usable term is left for repeated
// attempts, and up to a tenth earlier so that processes that started together
// don't stay in step.
func (l *Lease) interval() time.Duration {
	interval := max(min(l.Interval, l.term.usable()*2/3), time.Microsecond)

	return interval - time.Duration(rand.Float64()*float64(interval)/10)
}

// early is how much earlier than wanted a renewal may be made with others, so that many
// leases make few statements.
func (l *Lease) early() time.Duration {
	if l.party != 0 {
		return 0
	}

	return min(l.Interval, l.term.TTL-l.term.Short) / 10
}

// retryDelay is the pause after the nth attempt in a row that had no answer. It
// starts near a network round trip, doubles, and stays well under the term, so
// that an outage that ends within the term is noticed within it.
func (l *Lease) retryDelay() time.Duration {
	limit := max((l.term.TTL-l.term.Short)/20, time.Millisecond)
	limit = min(limit, time.Second)
	delay := min(5*time.Millisecond<<min(l.failures, 8), limit)

	return delay/2 + time.Duration(rand.Float64()*float64(delay)/2)
}

// patience is how long an attempt may stay unanswered before another is sent
// beside it, over another connection: a quarter of what is left, and a twentieth
// of the whole near its end.
func (l *Lease) patience(now time.Time) time.Duration {
	return max(l.term.Left(now)/4, l.term.usable()/20)
}

// hurry is how long a lease that is due waits for the end of an attempt for others: a
// quarter of what is left. Near the end of the lease it stays at hurryMin, or at the
// patience if that is shorter.
func (l *Lease) hurry(now time.Time) time.Duration {
	return min(l.patience(now), max(l.term.Left(now)/4, hurryMin))
}

// cause is what has kept the lease from being renewed until now.
func (l *Lease) cause(now time.Time) Cause {
	c := Cause{Err: l.lastErr, Locked: l.locked, Since: l.term.elapsed(now), Short: l.term.Short}

	// An attempt that has only begun is not the cause if something else was before.
	if a := l.asked; a != nil && (a.doubled || a.gaveUp || l.lastErr == nil && !l.locked) {
		c.Unanswered, c.Opening = now.Sub(a.began), a.opens
	}

	return c
}
