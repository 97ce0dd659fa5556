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

// sqlReleaseAll: the locks $1, granted to $2 with generations whose sum is $3 -> free, as release does, or nothing
// changes. The owner and a sum take the server less than a generation for each lock. A row that was changed since the
// snapshot is left, and is none of the rows returned.
//
// It frees what release would, and nothing else. The owner names one grant, as in unwanted, and generations only grow.
// So each row that is found has at least the generation that it was granted with. If as many rows are found as
// there are locks, and the sums are equal, then no generation has been raised, by hand say. The server's
// sum is a numeric. One that overflows in the client is less, and never equal.
//
// It passes over locked rows, and changes those that it has locked by their versions, as sqlGrantAll does. It reads c
// before it locks any: a commit that has locked rows and changed none would be waited for otherwise.
var sqlReleaseAll = with(`
WITH c AS MATERIALIZED (
    SELECT `+sqlReleaseOnce+`
), found AS MATERIALIZED (
    SELECT l.ctid AS version, l.generation
      FROM ONLY {table} AS l
     WHERE l.lock_id {=} ANY ((SELECT $1::{text}[])::{text}[])
       AND l.owner {=} $2
       AND (SELECT c.lazy FROM c) IS NOT NULL
       {lock} SKIP LOCKED
)
UPDATE ONLY {table} AS l
   SET `+sqlFreed+`
 WHERE l.ctid {=} ANY ((SELECT pg_catalog.array_agg(f.version)
                          FROM found AS f
                        HAVING pg_catalog.count(*) {=} pg_catalog.cardinality($1::{text}[])
                           AND pg_catalog.sum(f.generation) {=} $3::bigint)::{tid}[])
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

	together := s.ofOneGrant(sh, releases)
	if together {
		results, done, err := s.releaseGrant(ctx, sh, releases)
		if done || errors.Is(err, ErrUnknownOutcome) {
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

	if together && !slices.Contains(results, Released{}) {
		s.shape.found.Store(nil) // the table may have been partitioned since: the next request finds out
	}

	return results, err
}

// ofOneGrant reports whether one request was granted all, and they are released by nothing but their state.
func (s *Store) ofOneGrant(sh *shape, releases []Releasing) bool {
	owner := releases[0].State.Owner

	return sh.statements.releaseAll() != "" && owner != "" && len(releases) > 1 &&
		!slices.ContainsFunc(releases, func(r Releasing) bool {
			return r.State.Owner != owner || !r.State.Until.IsZero() || r.Hold > 0 || GateOf(r.LockID) != ""
		})
}

// releaseGrant sends sqlReleaseAll. It is done if that has released locks. If it hasn't, one of them may keep the others
// from their release, which go by their generations then.
func (s *Store) releaseGrant(ctx context.Context, sh *shape, releases []Releasing) (results []Released, done bool, err error) {
	var (
		ids = valuesOf(releases, func(r *Releasing) string { return r.LockID })
		sum int64

		id       text
		notified bool
		strange  error
		dest     = []any{&notified, &id}
	)

	for _, r := range releases {
		sum += r.State.Generation
	}

	results = make([]Released, len(releases))
	args := []any{ids, releases[0].State.Owner, sum}
	a := askPrepared(ctx, s, prepared{text: s.audible(sh.statements.releaseAll()), args: args, rows: len(ids)},
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
	case err == nil && len(a.rows) == 0:
		return nil, false, nil
	case err == nil:
		return results, true, nil
	case a.err == nil || a.outcome == unknown:
		return nil, false, fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	default:
		return nil, false, err
	}
}
