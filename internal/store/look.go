package store

import "context"

const (
	sqlGetOne = `
SELECT {row}, NULL::{text}
  FROM {table} AS l
 WHERE l.lock_id {=} {lock_id}`

	sqlGetMany = `
SELECT {row}, r.n
  FROM {requests} WITH ORDINALITY AS r ({columns}, n),
       LATERAL (SELECT * FROM {table} AS l WHERE l.lock_id {=} r.lock_id OFFSET 0) AS l`
)

// get reads a lock, for information only, and locks nothing.
var get = verb{
	given: parameters{paramID},
	one:   sqlGetOne,
	many:  sqlGetMany,
}

// look is get for whatever the answer decides.
var look = verb{
	given: parameters{paramID},
	one:   sqlPrimary + sqlGetOne,
	many:  sqlPrimary + sqlGetMany,
}

// Get reads the lock's row. The verdict is Granted or NotFound. A pooler may have a standby answer.
func (s *Store) Get(ctx context.Context, id string) (Result, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return Result{}, err
	}

	return seen(s.lanes.get.read(ctx, request{shape: sh, id: id}))
}

// Look is Get by which something is decided: the primary answers.
func (s *Store) Look(ctx context.Context, id string) (Result, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return Result{}, err
	}

	return s.look(ctx, sh, id)
}

// look is Look for a shape that is known.
func (s *Store) look(ctx context.Context, sh *shape, id string) (Result, error) {
	return seen(s.lanes.look.read(ctx, request{shape: sh, id: id}))
}

// seen is the result of reading a lock's row.
func seen(rows []Row, err error) (Result, error) {
	switch {
	case err != nil:
		return Result{}, err
	case len(rows) == 0:
		return Result{Verdict: NotFound}, nil
	}

	return Result{Verdict: Granted, Row: rows[0]}, nil
}

// Undone reports whether a crash undid the state, as the lock's present tenure shows.
func (s *Store) Undone(ctx context.Context, id string, state State) (bool, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil || state.seen(sh) == 0 {
		return false, err
	}

	seen, err := s.look(ctx, sh, id)

	return err == nil && seen.Row.AcquiredAt.After(state.Until), err
}
