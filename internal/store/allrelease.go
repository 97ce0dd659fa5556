package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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

// sqlReleaseAll: those of the locks $1 that were granted to $2 -> free, as release does. The owner names one grant,
// as in unwanted, and takes the server less than a generation for each lock. It passes over locked rows, and changes
// those that it has locked by their versions, as sqlGrantAll does.
var sqlReleaseAll = with(`
WITH c AS MATERIALIZED (
    SELECT `+sqlReleaseOnce+`
), found AS MATERIALIZED (
    SELECT l.ctid AS version
      FROM ONLY {table} AS l
     WHERE l.lock_id {=} ANY ((SELECT $1::{text}[])::{text}[])
       AND l.owner {=} $2
       {lock} SKIP LOCKED
)
UPDATE ONLY {table} AS l
   SET `+sqlFreed+`
 WHERE l.ctid {=} ANY ((SELECT pg_catalog.array_agg(found.version) FROM found)::{tid}[])
RETURNING {notify}, l.lock_id`,
	"{until}", `(SELECT c.now FROM c)`, "{floor}", `(SELECT c.floor FROM c)`)

// ReleaseAll makes one attempt to release several locks, sorted by id, in one statement. All are rows of
// families, or none is. One that isn't done: its row is locked, or its state is another, or it met an
// error, of which err is one. err matches [ErrUnknownOutcome] if any does.
func (s *Store) ReleaseAll(ctx context.Context, releases []Releasing) (results []Released, err error) {
	sh, err := s.shapeOf(ctx)
	if err != nil {
		return nil, err
	}

	if owner := releases[0].State.Owner; s.ofOneGrant(sh, owner, releases) {
		if results, err = s.releaseGrant(ctx, sh, owner, releases); err == nil || errors.Is(err, ErrUnknownOutcome) {
			return results, err
		}
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

// ofOneGrant reports whether all were granted to owner by one request, and are released by nothing but their state.
func (s *Store) ofOneGrant(sh *shape, owner string, releases []Releasing) bool {
	return sh.statements.releaseAll != "" && owner != "" && len(releases) > 1 &&
		!slices.ContainsFunc(releases, func(r Releasing) bool {
			return r.State.Owner != owner || !r.State.Until.IsZero() || r.Hold > 0 || GateOf(r.LockID) != ""
		})
}

// releaseGrant sends sqlReleaseAll. If one of the releases is refused, all are.
func (s *Store) releaseGrant(ctx context.Context, sh *shape, owner string, releases []Releasing) ([]Released, error) {
	results := make([]Released, len(releases))
	ids := valuesOf(releases, func(r *Releasing) string { return r.LockID })

	var (
		id       text
		notified bool
		strange  error
		dest     = []any{&notified, &id}
	)

	a := askPrepared(ctx, s, prepared{text: s.audible(sh.statements.releaseAll), args: []any{ids, owner}, rows: len(ids)},
		func(from scanner) (struct{}, error) {
			err := from.Scan(dest...)
			if i, found := slices.BinarySearchFunc(ids, id, compareToText); found {
				results[i] = Released{Done: true, Notified: notified}
			} else {
				strange = errStrangeID
			}

			return struct{}{}, err
		})

	switch err := cmp.Or(a.err, strange); {
	case err == nil:
		return results, nil
	case a.err == nil || a.outcome == unknown:
		return nil, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	default:
		return nil, err
	}
}
