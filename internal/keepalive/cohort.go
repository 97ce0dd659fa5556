package keepalive

import "time"

// cohort are leases that one answer has granted or renewed, and whose terms are the same. They fall due together, and end
// together. In the queues the first stands for all: of 100,000 leases, about a hundred are sorted.
type cohort struct {
	leases []*Lease
}

// size is how many leases a lease in the queues stands for.
func (l *Lease) size() int {
	if l.cohort == nil {
		return 1
	}

	return len(l.cohort.leases)
}

// join appends them to a batch.
func (l *Lease) join(batch []*Lease) []*Lease {
	if l.cohort == nil {
		return append(batch, l)
	}

	return append(batch, l.cohort.leases...)
}

// gather makes cohorts of leases that were renewed, and moves them to the state waiting. Leases with different terms
// are in different cohorts, and none has more than [batchLimit].
func (r *Renewer) gather(renewed []*Lease, now time.Time) {
	for len(renewed) > 0 {
		lead, n := renewed[0], 1
		for n < min(len(renewed), batchLimit) && renewed[n].term == lead.term && renewed[n].Interval == lead.Interval {
			n++
		}

		for _, l := range renewed[:n] {
			r.leave(l)
			r.ends.drop(l)
		}

		if n > 1 {
			c := &cohort{renewed[:n:n]}
			for i, l := range c.leases {
				l.cohort, l.rank = c, i
			}
		}

		r.ends.put(lead, r.end(lead, now))
		r.wait(lead, lead.term.Sent.Add(lead.interval()))

		renewed = renewed[n:]
	}
}

// follow adds a new lease to the cohort of the one that was added before it, if one statement has granted both, and
// reports whether it did.
func (r *Renewer) follow(l *Lease) bool {
	before := r.added
	r.added = l

	if before == nil || l.RenewNow || before.RenewNow || before.Interval != l.Interval || before.term != l.term ||
		before.failures > 0 || before.attempt != nil || before.size() >= batchLimit {
		return false
	}

	c := before.cohort
	if c == nil {
		c = &cohort{[]*Lease{before}}
		before.cohort, before.rank = c, 0
	}

	if c.leases[0].places[byNext] == 0 { // they are due
		return false
	}

	l.cohort, l.rank = c, len(c.leases)
	c.leases = append(c.leases, l)

	return true
}

// leave takes a lease out of its cohort. If it was the first, another stands for the rest in the queues, and it is in
// none itself.
func (r *Renewer) leave(l *Lease) {
	c := l.cohort
	if c == nil {
		return
	}

	last := len(c.leases) - 1
	next := c.leases[last]
	c.leases[last] = nil
	c.leases = c.leases[:last]
	l.cohort = nil

	if next == l {
		return
	}

	c.leases[l.rank], next.rank = next, l.rank

	if l.rank == 0 {
		for _, q := range r.queues() {
			q.replace(l, next)
		}
	}
}

// part puts a lease in the queues by itself, with the moments of its cohort.
func (r *Renewer) part(l *Lease) {
	if l.cohort == nil {
		return
	}

	lead := l.cohort.leases[0]
	moments, places := lead.moments, lead.places

	r.leave(l)

	for _, q := range r.queues() {
		if places[q.order] > 0 {
			q.put(l, moments[q.order])
		}
	}
}
