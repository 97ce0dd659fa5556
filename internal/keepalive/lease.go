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
	// the lease is gone, unless the lease was removed before. Both callbacks are
	// called from goroutines of the renewer and must return at once.
	OnLost func(Loss)

	// The rest is guarded by Renewer.mu.

	term Term
	// next is when the next attempt is due.
	next time.Time
	// attempt is the one that this lease is part of now, nil between attempts.
	attempt *attempt
	// failures counts attempts without an answer since the last renewal, and
	// lastErr is the error of the last of them.
	failures int
	lastErr  error
}

// Loss says why a lease can't be trusted any more.
type Loss struct {
	// Gone: the database says so. Otherwise the local term has passed.
	Gone bool
	// Err is the error of the last failed renewal, if any failed.
	Err error
}

// interval is the time from one renewal to the next: what was asked for, but
// never so late that less than a third of the usable term is left for repeated
// attempts, and up to a tenth earlier so that processes that started together
// don't stay in step.
func (l *Lease) interval() time.Duration {
	limit := (l.term.TTL - l.term.Margin) * 2 / 3
	interval := max(min(l.Interval, limit), time.Microsecond)

	return interval - time.Duration(rand.Float64()*float64(interval)/10)
}

// retryDelay is the pause after the nth attempt in a row that had no answer. It
// starts near a network round trip, doubles, and stays well under the term, so
// that an outage that ends within the term is noticed within it.
func (l *Lease) retryDelay() time.Duration {
	limit := max(l.term.TTL/20, time.Millisecond)
	limit = min(limit, time.Second)
	delay := min(5*time.Millisecond<<min(l.failures, 8), limit)

	return delay/2 + time.Duration(rand.Float64()*float64(delay)/2)
}

// patience is how long an attempt may stay unanswered before another is sent
// beside it, over another connection: a quarter of what is left, and a twentieth
// of the whole near its end.
func (l *Lease) patience(now time.Time) time.Duration {
	return max(l.term.Left(now)/4, (l.term.TTL-l.term.Margin)/20)
}
