package store

import (
	"context"
	"errors"
	"time"
)

// Releasing asks for the release of one of several locks, as [Store.Release] does.
type Releasing struct {
	LockID string
	State  State
	Hold   time.Duration
}

// Released is what became of one of several releases.
type Released struct {
	Done bool
	// Notified: it notified waiters.
	Notified bool
}

// ReleaseAll makes one attempt to release several locks, sorted by id, in one statement. All are rows of
// families, or none is. One that isn't done: its row is locked, or its state is another, or it met an
// error, of which err is one. err matches [ErrUnknownOutcome] if any does.
func (s *Store) ReleaseAll(ctx context.Context, releases []Releasing) (results []Released, err error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return nil, err
	}

	lane := s.lanes.release
	if GateOf(releases[0].LockID) != "" {
		lane = s.lanes.releaseSlot
	}

	answers := lane.several(ctx, valuesOf(releases, func(r *Releasing) request {
		return request{
			shape: sh, id: r.LockID, gate: GateOf(r.LockID), generation: r.State.Generation, seen: r.State.seen(sh), hold: Microseconds(r.Hold),
		}
	}))

	results = make([]Released, len(releases))

	for i, a := range answers {
		switch {
		case a.err == nil && len(a.rows) == 1:
			results[i] = Released{Done: true, Notified: a.rows[0]}
		case err == nil || errors.Is(a.err, ErrUnknownOutcome):
			err = a.err
		}
	}

	return results, err
}
