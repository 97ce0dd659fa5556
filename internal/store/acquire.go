package store

import (
	"context"
	"time"
)

// sqlFree is a lock that nobody holds.
const sqlFree = `l.expires_at {<=} {now}`

// acquire: free -> held. A held lock matches nothing, and costs no write. It waits for the row only
// where that was free in the statement's snapshot: for another grant, which then decides, or for
// another transaction's row lock.
var acquire = verb{
	given: parameters{paramID, paramTTL, paramOwner},
	one:   change(sqlGranted, sqlFree, `{row}, {former}, {durable}`),
	many:  changeMany(sqlGrantOnce, sqlFree, "", sqlGranted, `{row}, r.former, r.n`),
	byID:  grantByID("", `{row}, `+sqlFormerByID+`, l.lock_id`),
}

// try is acquire that returns the granted row, or else the row as the statement's snapshot shows
// it, or none if there is no such lock.
var try = verb{
	given: parameters{paramID, paramTTL, paramOwner},
	one: `
WITH got AS (` + change(sqlGranted, sqlFree, `l.*, {durable} AS pglocker_durable`) + `
)
SELECT {row}, {former}, l.pglocker_durable, true FROM got AS l
 UNION ALL
SELECT {row}, NULL::bigint, NULL::{text}, false
  FROM {table} AS l
 WHERE l.lock_id {=} {lock_id}
   AND NOT EXISTS (SELECT FROM got)`,
	many: changeMany(sqlGrantOnce, sqlFree, `, got AS (`, sqlGranted, `l.*, r.n AS pglocker_n, r.former AS pglocker_former`) + `
)
SELECT {row}, l.pglocker_former, l.pglocker_n, true FROM got AS l
 UNION ALL
SELECT {row}, NULL::bigint, r.n, false
  FROM {requests} WITH ORDINALITY AS r ({columns}, n),
       LATERAL (SELECT * FROM {table} AS l WHERE l.lock_id {=} r.lock_id OFFSET 0) AS l
 WHERE NOT EXISTS (SELECT FROM got WHERE got.pglocker_n {=} r.n)`,
	byID: grantByID(`, got AS (`, `l.*, `+sqlFormerByID+` AS pglocker_former`) + `
)
SELECT {row}, l.pglocker_former, l.lock_id, true FROM got AS l
 UNION ALL
SELECT {row}, NULL::bigint, l.lock_id, false
  FROM {table} AS l
 WHERE (SELECT pg_catalog.count(*) FROM got) {<} pg_catalog.cardinality($1::{text}[])
   AND l.lock_id {=} ANY ((SELECT $1::{text}[])::{text}[])
   AND NOT EXISTS (SELECT FROM got WHERE got.lock_id {=} l.lock_id)`,
}

// grantByID is changeMany for many grants that are alike but for their owners. It finds the rows by arrays and not one by
// one, and changes them by their versions. These mean something in one part alone: ONLY keeps it from a table that is
// partitioned later, of which it finds none. An object has the owners by the ids, and one the holders that didn't
// release: both are looked up in less time than a join takes.
func grantByID(between, returning string) string {
	return with(`
WITH c AS MATERIALIZED (
    SELECT `+sqlGrantOnce+`
), found AS MATERIALIZED (
    SELECT l.ctid AS version{six}, l.lock_id, CASE WHEN l.owner IS NOT NULL THEN l.generation END AS former{end}
      FROM ONLY {table} AS l
     WHERE l.lock_id {=} ANY ((SELECT $1::{text}[])::{text}[])
       AND `+sqlFree+`
       {lock} SKIP LOCKED
), them AS MATERIALIZED (
    SELECT pg_catalog.array_agg(f.version) AS versions{six},
           pg_catalog.jsonb_object_agg(f.lock_id, f.former) FILTER (WHERE f.former IS NOT NULL) AS formers{end}
      FROM found AS f
)`+between+`
UPDATE ONLY {table} AS l
   SET `+sqlGranted+`
 WHERE l.ctid {=} ANY ((SELECT them.versions FROM them)::{tid}[])
RETURNING `+returning,
		"{clock}", `(SELECT c.now FROM c)`, "{floor}", `(SELECT c.floor FROM c)`, "{ttl}", `(SELECT ($2::bigint[])[1])`,
		"{owner}", `(SELECT pg_catalog.jsonb_object($1::{text}[], $3::{text}[])) {->>} l.lock_id`)
}

// sqlFormerByID is sqlFormer of a row that grantByID has locked.
const sqlFormerByID = `{six}((SELECT them.formers FROM them) {->>} l.lock_id)::bigint{three}NULL::bigint{end}`

// maxContests bounds the rounds of one Acquire. A round ends without an answer only if the lock
// changed hands between two statements.
const maxContests = 16

// Acquire grants the lock to owner for ttl if it is free, and creates it if it isn't there. owner
// must be of this call alone: a grant whose reply is lost is found by it. Later attempts have
// owners made from it. A grant with margin or less remaining is not reported.
//
// An error that matches [ErrUnknownOutcome] means that the lock may have been granted, to one of
// Result.Stray. Any other error means that it was not.
func (s *Store) Acquire(ctx context.Context, id, owner string, ttl, margin time.Duration) (Result, error) {
	g := grant{id: id, owner: owner, ttl: ttl}
	if err := g.begin(ctx, s); err != nil {
		return Result{}, err
	}

	return g.result(g.acquire(ctx, margin))
}

func (g *grant) acquire(ctx context.Context, margin time.Duration) (Result, error) {
	var (
		s     = g.store
		seen  Result
		alone bool
		free  int64 // the generation with which the row was seen free
		moved bool
	)

	for contests := 0; contests < maxContests; {
		res, granted, err := g.try(ctx, s.lanes.acquire, State{}, alone)
		if err != nil {
			return Result{}, err
		}

		if granted || g.waited || !alone { // else a batch may have passed it over again
			contests++
		}

		if !granted {
			if seen, err = s.look(ctx, g.shape, g.id); err != nil {
				return Result{}, g.doubt(err)
			}

			// If it is free, a batch may have passed it over.
			alone = true

			switch {
			case seen.Verdict == NotFound && g.shape.plain:
				if _, err = s.createPlainly(ctx, g.shape, g.id); err != nil {
					return Result{}, g.doubt(err)
				}
			case seen.Verdict == NotFound:
				res, granted, err = g.try(ctx, s.lanes.insert, State{}, false)
				if err != nil {
					return Result{}, err
				}
			case seen.Row.Held() && !g.mine(seen.Row):
				if g.doubtful && !g.shape.full {
					return Result{}, g.doubt(nil)
				}

				seen.Verdict = Busy

				return seen, nil
			default:
				if !g.waited {
					s.shape.passedOver()
				}

				moved = moved || free != 0 && free != seen.Row.Generation
				free = seen.Row.Generation
			}
		}

		// The lease was computed before the statement waited for the row, and part of it may be
		// gone.
		after := res.Row.AfterCrash

		for granted && res.Row.Remaining() <= margin {
			if res.Lease() <= margin {
				return Result{}, errCut(res, margin)
			}

			g.over = true
			res, granted, err = g.try(ctx, s.lanes.refresh, State{Generation: res.Row.Generation}, true)
			if err != nil {
				return Result{}, err
			}

			res.Row.AfterCrash = after
		}

		if granted {
			return res, nil
		}
	}

	if g.doubtful {
		return Result{}, g.doubt(nil)
	}

	if g.shape.secured && !seen.Row.Held() && !moved {
		return Result{}, s.hidden(g.id)
	}

	// Every round found it free and lost it to another: contended, if not held at this moment.
	seen.Verdict = Busy

	return seen, nil
}
