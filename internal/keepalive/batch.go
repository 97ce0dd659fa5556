package keepalive

import (
	"slices"
	"time"
)

// batchLimit bounds the leases in one statement, and so how long its row locks last.
const batchLimit = 1000

// batch takes from the queues what goes in one statement: of the leases that are due the most
// urgent and its party, and those that may go early if it has no party.
func (r *Renewer) batch(now time.Time) []*Lease {
	party := r.due.first().party

	var batch, others []*Lease

	for l := r.due.first(); l != nil && len(batch) < batchLimit && len(others) < batchLimit; l = r.due.first() {
		r.due.drop(l)

		if l.party == party {
			batch = append(batch, l)
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

	for l := r.early.first(); l != nil && l.moments[byEarly] <= now.Sub(r.began) && len(batch) < batchLimit; l = r.early.first() {
		r.take(l)
		batch = append(batch, l)
	}

	return batch
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
