package oracle

import (
	"slices"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
)

// sight is what a transition's statement went by.
type sight struct {
	// earliest and latest are times of the database's clock, between which it looked at the
	// lease.
	earliest, latest int64
	// refreshed: its client asked to refresh the very generation that it found.
	refreshed bool
	// pruned: rows have been pruned in this run, so that a first grant continues above them.
	pruned bool
}

// sightOf is the sight of a transition. op is the request of its statement, if that is known.
func (r *Run) sightOf(t *audit.Transition, op *history.Operation) sight {
	return sight{
		earliest:  r.seenFrom(t),
		latest:    r.seenBy(t, op),
		refreshed: slices.ContainsFunc(r.naming(t), func(op *history.Operation) bool { return op.Kind == history.Refresh }),
		pruned:    r.Pruned,
	}
}

// naming are the requests of the transition's client that name the generation which it
// found, and that had been made by then.
func (r *Run) naming(t *audit.Transition) []*history.Operation {
	if r.names == nil {
		r.names = make(map[tenure][]*history.Operation)

		for _, op := range r.History.Operations {
			if op.Generation != 0 {
				of := tenure{op.Client, op.Lock, op.Generation}
				r.names[of] = append(r.names[of], op)
			}
		}
	}

	_, last := r.momentsOf(t)
	all := r.names[tenure{t.App, t.Lock, t.Old.Generation}]

	return slices.DeleteFunc(slices.Clone(all), func(op *history.Operation) bool { return op.Call > last })
}
