package keepalive

import "time"

// Term is the span during which a holder may trust its lease. It is known by the
// holder's clocks alone, and is always shorter than the lease in the database:
// it starts when the granting or renewing statement was sent, the lease when the
// database executed it, which is later.
type Term struct {
	// Sent is the moment before the statement was sent. It must come from
	// time.Now, whose value reads the monotonic and the wall clock together.
	Sent time.Time
	// TTL is what the statement asked for.
	TTL time.Duration
	// Short is how much less than that the row showed, zero mostly: a trigger of the
	// table's owner may end leases earlier.
	Short time.Duration
	// Margin is how long before the end the holder stops believing. It covers
	// steps and skew of the database's clock, and the time it takes to act.
	Margin time.Duration
}

// Shown returns the term of a lease that the row shows to run for lease, counted from a
// moment after Sent. A row that shows more than was asked for doesn't lengthen it.
func (t Term) Shown(lease time.Duration) Term {
	t.Short = min(max(t.TTL-lease, 0), t.TTL)

	return t
}

// usable is how long the term is as a whole.
func (t Term) usable() time.Duration { return t.TTL - t.Short - t.Margin }

// Left is how long the term still runs at now, by whichever of the two clocks
// says less: the monotonic clock stops while a machine sleeps, the wall clock
// may be set back. At most zero means that the term is over.
func (t Term) Left(now time.Time) time.Duration {
	return t.usable() - t.elapsed(now)
}

// LeaseLeft is the same without the margin: how long the database may still show
// the lease. What is asked of the database after that is in vain.
func (t Term) LeaseLeft(now time.Time) time.Duration {
	return t.TTL - t.Short - t.elapsed(now)
}

func (t Term) elapsed(now time.Time) time.Duration {
	monotonic := now.Sub(t.Sent)
	wall := now.Round(0).Sub(t.Sent.Round(0))

	return max(monotonic, wall)
}
