package store

import (
	"context"
	"time"
)

// refresh: a generation, held or not -> held under the next one. It is a compare-and-swap, and for
// another owner a hand-over. It locks as acquire does.
var refresh = verb{
	given: parameters{paramID, paramTTL, paramGeneration, paramOwner, paramSeen},
	one:   change(sqlGranted, sqlOfGeneration+sqlSeen, `{row}, {durable}`),
	dated: changeMany(sqlGrantOnce, sqlOfGeneration+sqlSeen, "", sqlGranted, `{row}, r.n`),

	undated: parameters{paramID, paramTTL, paramGeneration, paramOwner},
	many:    changeMany(sqlGrantOnce, sqlOfGeneration, "", sqlGranted, `{row}, r.n`),
}

// sqlOfGeneration is a lock in the state that a request names.
const sqlOfGeneration = `l.generation {=} {generation}`

// State is a state of a lock that a request goes by.
type State struct {
	Generation int64
	// Until is what that state showed as the end of the lease, or zero. A crash may have undone a
	// release, and the next grant have got its generation: a tenure that began after Until is not
	// this state. On three columns it is ignored, and releases are flushed.
	Until time.Time
	// Owner is that of the grant, if it is known. ReleaseAll goes by it.
	Owner string
}

// Dated reports whether the state goes by more than its generation.
func (s *Store) Dated(st State) bool { return s.Full() && !st.Until.IsZero() }

func (st State) seen(sh *shape) int64 {
	if !sh.full || st.Until.IsZero() {
		return 0
	}

	return st.Until.UnixMicro()
}

// shownBy reports whether the row shows this state.
func (st State) shownBy(row Row) bool {
	return row.Generation == st.Generation && (st.Until.IsZero() || !row.AcquiredAt.After(st.Until))
}

// Refresh grants the lock to owner for ttl if it is in the given state, held or not. Errors are as
// for [Store.Acquire].
func (s *Store) Refresh(ctx context.Context, id string, state State, owner string, ttl, margin time.Duration) (Result, error) {
	g := grant{id: id, owner: owner, ttl: ttl, keep: true}
	if err := g.begin(ctx, s); err != nil {
		return Result{}, err
	}

	return g.result(g.swap(ctx, state, margin))
}

// HandOver is [Store.Refresh] for another owner than the holder: a release and the grant to the
// next in one statement.
func (s *Store) HandOver(ctx context.Context, id string, generation int64, owner string, ttl, margin time.Duration) (Result, error) {
	g := grant{id: id, owner: owner, ttl: ttl}
	if err := g.begin(ctx, s); err != nil {
		return Result{}, err
	}

	return g.result(g.swap(ctx, State{Generation: generation}, margin))
}

// swap grants by a state.
func (g *grant) swap(ctx context.Context, state State, margin time.Duration) (Result, error) {
	s := g.store
	alone := false

	for {
		res, granted, err := g.try(ctx, s.lanes.refresh, state, alone)

		switch {
		case err != nil:
			return Result{}, err
		case granted && res.Row.Remaining() > margin:
			return res, nil
		case granted && res.Lease() <= margin:
			return Result{}, errCut(res, margin)
		case granted: // computed before a wait, see Acquire
			g.over = true
			state = State{Generation: res.Row.Generation}

			continue
		}

		seen, err := s.look(ctx, g.shape, g.id)
		if err != nil {
			return Result{}, g.doubt(err)
		}

		if g.doubtful && !g.shape.full {
			return Result{}, g.doubt(nil)
		}

		if seen.Verdict == Granted && (seen.Row.Generation == state.Generation || g.mine(seen.Row)) && !g.waited {
			alone = true // a batch passed it over

			continue
		}

		if seen.Verdict == Granted {
			if g.shape.secured && state.shownBy(seen.Row) {
				return Result{}, g.doubt(s.hidden(g.id))
			}

			seen.Verdict = WrongGeneration
		}

		return seen, nil
	}
}
