package store

import (
	"context"
	"fmt"
	"time"
)

// Create makes the lock, free and with generation 1, unless it is there, and
// returns its row. Errors leave open whether it was created, which harms nobody.
func (s *Store) Create(ctx context.Context, id string) (Row, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return Row{}, err
	}

	for range maxContests {
		seen, err := s.look(ctx, sh, id)
		if err != nil || seen.Verdict != NotFound {
			return seen.Row, err
		}

		if a := s.lanes.create.write(ctx, request{shape: sh, id: id}, false); a.err != nil || len(a.rows) == 1 {
			return append(a.rows, Row{})[0], a.err
		}
	}

	if sh.secured {
		return Row{}, s.hidden(id)
	}

	return Row{}, fmt.Errorf("pglocker: lock %q appears and vanishes: rows of %s are being deleted", id, s.table)
}

// Get reads the lock's row; the verdict is Granted or NotFound. It is for information
// only: a pooler may have it answered by a standby.
func (s *Store) Get(ctx context.Context, id string) (Result, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return Result{}, err
	}

	return seen(s.lanes.get.read(ctx, request{shape: sh, id: id}))
}

// look is Get for whatever is decided by the answer: the primary's, see sqlPrimary.
func (s *Store) look(ctx context.Context, sh *shape, id string) (Result, error) {
	return seen(s.lanes.look.read(ctx, request{shape: sh, id: id}))
}

// seen is the result of reading a lock's row.
func seen(rows []Row, err error) (Result, error) {
	if err != nil {
		return Result{}, err
	}

	if len(rows) == 0 {
		return Result{Verdict: NotFound}, nil
	}

	return Result{Verdict: Granted, Row: rows[0]}, nil
}

// Undone reports whether the lock's present tenure shows that the state was undone by a
// crash: it is not of this state, whatever its generation.
func (s *Store) Undone(ctx context.Context, id string, state State) (bool, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil || state.seen(sh) == 0 {
		return false, err
	}

	seen, err := s.look(ctx, sh, id)

	return err == nil && seen.Row.AcquiredAt.After(state.Until), err
}

// Release frees the lock if it is in the given state, at once or, to honour
// a minimum hold, that much later; who waits is notified. The verdict is Granted, WrongGeneration or
// NotFound. A lost reply is answered by asking again; if the generation is then
// another, nobody can tell who moved it, and the error matches [ErrUnknownOutcome].
func (s *Store) Release(ctx context.Context, id string, state State, hold time.Duration) (Result, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return Result{}, err
	}

	var (
		req   = request{shape: sh, id: id, generation: state.Generation, seen: state.seen(sh), hold: Microseconds(hold)}
		alone bool
		doubt error
		n     int // replies that were lost
		anew  bool
	)

	for {
		a := s.lanes.release.write(ctx, req, alone)
		if a.err == nil && len(a.rows) == 1 {
			return Result{Verdict: Granted, Notified: a.rows[0]}, nil
		}

		if a.outcome == unknown {
			doubt = a.err // it has to be settled
			if n++; n < sendAttempts && pause(ctx, n) {
				continue
			}
		}

		if a.outcome == refused && outdated(a.err) && !anew {
			anew = true

			if found, ok := s.changed(ctx, req.shape); ok {
				req.shape, req.seen = found, state.seen(found)

				continue
			}
		}

		if a.err != nil {
			if doubt != nil {
				return Result{}, doubt
			}

			return Result{}, a.err
		}

		seen, err := s.look(ctx, req.shape, id)
		if err == nil && seen.Verdict == Granted && seen.Row.Generation == state.Generation && !a.waited {
			alone = true // a statement for several passed it over

			continue
		}

		if doubt != nil {
			return Result{}, doubt
		}

		if err == nil && seen.Verdict == Granted {
			if req.shape.secured && state.shownBy(seen.Row) {
				return Result{}, s.hidden(id)
			}

			seen.Verdict = WrongGeneration
		}

		return seen, err
	}
}
