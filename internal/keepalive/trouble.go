package keepalive

import "time"

// Loss says why a lease can't be trusted any more.
type Loss struct {
	// Gone: the database says so. Otherwise the term has ended.
	Gone bool
	// Cause is what kept the lease from being renewed.
	Cause
}

// Cause is what keeps a lease from being renewed. Only Since is always set.
type Cause struct {
	// Err is the error of the last renewal that failed, not counting those that the Renewer
	// cancelled.
	Err error
	// Locked: by the last answer another transaction has the row locked.
	Locked bool
	// Unanswered is for how long the server has not answered or, with Opening, no connection
	// could be opened.
	Unanswered time.Duration
	Opening    bool
	// Since is how long ago the last acknowledged grant or renewal was sent.
	Since time.Duration
	// Short is how much less than the TTL the row showed then.
	Short time.Duration
}

// Trouble is told when a renewal fails, and when an attempt is doubled for want of an answer.
type Trouble struct {
	// Locks is how many leases are in trouble, zero at the end of it.
	Locks int
	// LockID and Generation are of the lease that is lost next, and Left is what is left of its
	// term.
	LockID     string
	Generation int64
	Left       time.Duration
	Cause
}

// cause is what has kept the lease from being renewed until now.
func (l *Lease) cause(now time.Time) Cause {
	c := Cause{Err: l.lastErr, Locked: l.locked, Since: l.term.elapsed(now), Short: l.term.Short}

	// An attempt that has only just begun is not the cause if there is another.
	if a := l.asked; a != nil && (a.doubled || a.gaveUp || l.lastErr == nil && !l.locked) {
		c.Unanswered, c.Opening = now.Sub(a.began), a.opens
	}

	return c
}

// trouble counts a lease as one in trouble. report tells of the one that is lost first.
func (r *Renewer) trouble(l *Lease, now time.Time) {
	if !l.troubled {
		l.troubled = true
		r.troubled++
	}

	if r.urgent == nil || l.term.Left(now) < r.urgent.term.Left(now) {
		r.urgent = l
	}
}

func (r *Renewer) report(now time.Time) {
	l := r.urgent
	if l == nil {
		return
	}

	r.urgent = nil
	trouble := Trouble{
		Locks: r.troubled, LockID: l.LockID, Generation: l.Generation,
		Left: l.term.Left(now), Cause: l.cause(now),
	}
	r.calls = append(r.calls, func() { r.onTrouble(trouble) })
}

// calm ends the trouble of a lease.
func (r *Renewer) calm(l *Lease) {
	if !l.troubled {
		return
	}

	l.troubled = false
	r.troubled--

	if r.troubled == 0 {
		r.calls = append(r.calls, func() { r.onTrouble(Trouble{}) })
	}
}
