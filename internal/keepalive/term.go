package keepalive

import "time"

// Term is the span during which a holder may trust its lease, by its own clocks alone. It begins
// when the granting or renewing statement is sent. The lease begins when the database executes
// the statement, so the term ends first.
type Term struct {
	// Sent is the moment before the statement was sent, from time.Now, which reads both clocks.
	Sent time.Time
	// TTL is what the statement asked for.
	TTL time.Duration
	// Short is how much less than TTL the row showed, if a trigger of the table's owner ends
	// leases earlier.
	Short time.Duration
	// Margin is how long before the lease the term ends. It covers steps and skew of the
	// database's clock, and the time that the holder needs to act.
	Margin time.Duration
}

// Shown returns the term where the row shows that the lease runs for lease, from a moment after
// Sent. More than TTL doesn't lengthen the term.
func (t Term) Shown(lease time.Duration) Term {
	t.Short = min(max(t.TTL-lease, 0), t.TTL)

	return t
}

// Left is how long the term still runs at now; it is over at zero and below. The clock that says
// less counts: the monotonic one stops while a machine sleeps, and the wall clock may be set back.
func (t Term) Left(now time.Time) time.Duration { return t.usable() - t.elapsed(now) }

// LeaseLeft is how long the database may still show the lease at now: Left and the margin.
func (t Term) LeaseLeft(now time.Time) time.Duration { return t.lease() - t.elapsed(now) }

// lease is the length of the lease, usable that of the term.
func (t Term) lease() time.Duration  { return t.TTL - t.Short }
func (t Term) usable() time.Duration { return t.lease() - t.Margin }

func (t Term) elapsed(now time.Time) time.Duration {
	return max(now.Sub(t.Sent), now.Round(0).Sub(t.Sent.Round(0)))
}

// interval is the longest time to the next renewal. A third of the term is left for retries.
func (t Term) interval(asked time.Duration) time.Duration {
	return max(min(asked, t.usable()*2/3), time.Microsecond)
}

// retry is the longest pause after a number of failures in a row. It begins near a round trip,
// and stays so short that an outage which ends within the term is noticed within it.
func (t Term) retry(failures int) time.Duration {
	return min(5*time.Millisecond<<min(failures, 8), max(t.lease()/20, time.Millisecond), time.Second)
}

// patience is how long an attempt that begins at now may stay unanswered before another is sent
// beside it.
func (t Term) patience(now time.Time) time.Duration {
	return max(t.Left(now)/4, t.usable()/20)
}

// hurry is how long a lease that is due at now waits for the end of an attempt of others.
func (t Term) hurry(now time.Time) time.Duration {
	return max(t.Left(now)/4, min(t.usable()/20, 50*time.Millisecond))
}
