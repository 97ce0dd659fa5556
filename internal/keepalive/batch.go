package keepalive

import (
	"slices"
	"strings"
	"time"
)

const (
	// batchLimit bounds the leases in one statement, and so how long its row locks last, where few are held.
	batchLimit = 1000
	// batchShare is which part of all leases a statement has where more are held, up to batchMost. Of 100,000 it
	// has 2,500, whose row locks last for about 30 ms.
	batchShare = 40
	batchMost  = 4000
)

// limit is how many leases a statement may have. On a server that can't keep up it has few, or it would take so long
// that it is doubled, and each of the two makes the other slower: while an earlier attempt hangs, and if the most
// urgent lease is late.
func (r *Renewer) limit(now time.Time) int {
	if term := r.due.first().term; len(r.attempts) > 0 || term.Left(now) < (term.TTL-term.Margin)/2 {
		return batchLimit
	}

	return min(max(batchLimit, r.held/batchShare), batchMost)
}

// batch takes from the queues what goes in one statement: of the leases that are due the most
// urgent and its party, and those that may go early if it has no party. A cohort goes as a whole.
func (r *Renewer) batch(now time.Time) []*Lease {
	var (
		party         = r.due.first().party
		limit         = r.limit(now)
		batch, others []*Lease
	)

	fits := func(l *Lease) bool { return len(batch) == 0 || len(batch)+l.size() <= limit }

	for l := r.due.first(); l != nil && fits(l) && len(others) < limit; l = r.due.first() {
		r.due.drop(l)

		if l.party == party {
			batch = l.join(batch)
		} else {
			others = append(others, l)
		}
	}

	for _, l := range others {
		r.due.put(l, l.moments[byEnd])
	}

	if party != 0 {
		return batch
	}

	for l := r.early.first(); l != nil && l.moments[byEarly] <= now.Sub(r.began) && fits(l); l = r.early.first() {
		r.take(l)
		batch = l.join(batch)
	}

	return batch
}

// sorted puts leases in the order of their ids, which those of a cohort have already. Locks with ids that are near
// each other are near each other in the table, as a rule, or in its index.
func sorted(leases []*Lease) []*Lease {
	slices.SortFunc(leases, func(a, b *Lease) int { return strings.Compare(a.LockID, b.LockID) })

	return leases
}

// divide makes two parties of leases that were refused together.
func (r *Renewer) divide(refused []*Lease, now time.Time) {
	for party := range slices.Chunk(refused, max((len(refused)+1)/2, 1)) {
		r.parties++

		// The same moment for all of them, or they wouldn't go together.
		next := now.Add(party[0].retryDelay())

		for _, l := range party {
			l.party = r.parties
			r.wait(l, next)
		}
	}
}
