package store

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// sqlGrantAll: the locks $1, all there and free -> all held by $3 for $2 microseconds. Its rows are the granted
// locks. It has none, and nothing has changed, if a lock is missing, held, or locked by another transaction: then
// sqlGrantAllOrTell says which. The usual grant is to cost little, and half of a small statement's cost is the size
// of its plan.
//
// It looks first and locks nothing (seen). Only if all are free does it lock them, and it passes over
// a row that another transaction has locked (found): it waits for no row, so no order of ids can
// deadlock. If a row was passed over, or was changed since the snapshot, none is granted: PostgreSQL 12 finds
// the newest version of a changed row by the ctid of an older one, so the versions are compared. A scan by
// versions returns them sorted. (If it did not, nothing would be granted here.)
//
// It looks rows up by arrays and not by joins, which take half as long again, and by the index once: after that
// it goes by the versions that it saw. These mean something in one part alone, so a partitioned table has none of
// this, and ONLY keeps it from a table that is partitioned later. In a subquery, an array can't tempt the planner
// to plan for its length, time and again.
var sqlGrantAll = with(`
WITH c AS MATERIALIZED (
    SELECT `+sqlGrantOnce+`, $1::{text}[] AS ids
), seen AS MATERIALIZED (
    SELECT `+sqlAllFree+` AS free, `+sqlVersions+` AS versions
      FROM ONLY {table} AS l
     WHERE l.lock_id {=} ANY ({ids})
), found AS MATERIALIZED (
    SELECT l.ctid AS version
      FROM ONLY {table} AS l
     WHERE l.ctid {=} ANY ((SELECT seen.versions FROM seen WHERE seen.free)::{tid}[])
       {lock} SKIP LOCKED
)
UPDATE ONLY {table} AS l
   SET `+sqlGranted+`
 WHERE l.ctid {=} ANY ((SELECT seen.versions FROM seen)::{tid}[])
   AND (SELECT pg_catalog.array_agg(found.version) FROM found) {=} (SELECT seen.versions FROM seen)
RETURNING l.generation, `+sqlExpiresAt+`, {iso}{clock}{/iso}, {began}, l.lock_id`, sqlOfAll...)

// sqlGrantAllOrTell is sqlGrantAll that also tells which lock is in the way, of a table that may be partitioned. It
// looks rows up by the ids.
//
// A granted lock is a row of the answer. So is, if nothing was granted, the first lock in the way:
// one that is held, or else one that was passed over or changed. There is no row if locks are missing and no
// other is held.
var sqlGrantAllOrTell = with(`
WITH c AS MATERIALIZED (
    SELECT `+sqlGrantOnce+`, $1::{text}[] AS ids
), seen AS MATERIALIZED (
    SELECT `+sqlAllFree+` AS free, `+sqlVersions+` AS versions
      FROM {table} AS l
     WHERE l.lock_id {=} ANY ({ids})
), found AS MATERIALIZED (
    SELECT l.lock_id, l.ctid AS version
      FROM {table} AS l
     WHERE l.lock_id {=} ANY ({ids})
       AND l.expires_at {<=} {clock}
       AND (SELECT seen.free FROM seen)
       {lock} SKIP LOCKED
), got AS (
    UPDATE {table} AS l
       SET `+sqlGranted+`
     WHERE l.lock_id {=} ANY ({ids})
       AND (SELECT pg_catalog.array_agg(f.version ORDER BY f.version) FROM found AS f) {=} (SELECT seen.versions FROM seen)
    RETURNING l.lock_id, l.generation, l.expires_at
)
SELECT l.generation, `+sqlExpiresAt+`, NULL::{text}, NULL::{timestamptz}, NULL::{timestamptz},
       {iso}{clock}{/iso}, {began}, l.lock_id, true
  FROM got AS l
 UNION ALL
SELECT {row}, l.lock_id, false
  FROM (SELECT l.*
          FROM pg_catalog.unnest({ids}) WITH ORDINALITY AS r (lock_id, n),
               LATERAL (SELECT l.ctid AS pglocker_version, l.* FROM {table} AS l WHERE l.lock_id {=} r.lock_id OFFSET 0) AS l
         WHERE NOT l.expires_at {<=} {clock}
            OR (SELECT seen.free FROM seen)
               AND NOT EXISTS (SELECT FROM found WHERE found.lock_id {=} l.lock_id AND found.version {=} l.pglocker_version)
         ORDER BY r.n
         LIMIT 1) AS l
 WHERE NOT EXISTS (SELECT FROM got)`, sqlOfAll...)

const (
	sqlAllFree  = `pg_catalog.count(*) {=} pg_catalog.cardinality({ids}) AND pg_catalog.bool_and(l.expires_at {<=} {clock})`
	sqlVersions = `pg_catalog.array_agg(l.ctid ORDER BY l.ctid)`
)

// sqlOfAll is what stands in the braces of both.
var sqlOfAll = []string{
	"{ids}", `(SELECT c.ids FROM c)::{text}[]`,
	"{clock}", `(SELECT c.now FROM c)`, "{floor}", `(SELECT c.floor FROM c)`, "{ttl}", `$2::bigint`, "{owner}", `$3`,
}

// scanGrantAll reads rows of sqlGrantAll. ids are those that were asked for, sorted.
func scanGrantAll(ids []string) scanFunc[LockRow] {
	var (
		row  Row
		id   text
		dest = []any{&row.Generation, &row.ExpiresAt, &row.Now, &row.Began, &id}
	)

	return func(from scanner) (LockRow, error) {
		err := from.Scan(dest...)
		lock := LockRow{Row: row}
		lock.Row.ExpiresAt, lock.Row.Now, lock.Row.Began = row.ExpiresAt.UTC(), row.Now.UTC(), row.Began.UTC()

		if i, found := slices.BinarySearchFunc(ids, id, compareToText); found {
			lock.LockID = ids[i] // needs no copy
		} else {
			lock.LockID = string(id)
		}

		return lock, err
	}
}

// scanGrantAllOrTell reads a {row}, the id, and whether it was granted: all rows of an answer are, or none.
func scanGrantAllOrTell(granted *bool) scanFunc[LockRow] {
	var (
		lock LockRow
		row  rowScan
	)

	row.init(new(tag), &lock.LockID, granted)

	return func(from scanner) (_ LockRow, err error) {
		lock.Row, err = row.scan(from)

		return lock, err
	}
}

// allContests bounds the rounds of one AcquireAll, as maxContests does for Acquire. There is a pause
// after each, of half a second together.
const allContests = 8

// AcquireAll grants several locks, sorted by id, to owner for ttl if all are free, and creates those
// that aren't there. It grants all or none. The verdict is Granted, with [Result.Grants] in the
// order of the ids, or Busy, with the first lock in the way. again: the caller was refused before, and is likely
// to be again, which one statement can tell.
//
// owner and errors are as for [Store.Acquire]. Beside another error than [ErrUnknownOutcome],
// Result.Grants may have grants that nobody wants: the table has cut their leases, or has kept
// others from being granted.
func (s *Store) AcquireAll(ctx context.Context, ids []string, owner string, ttl, margin time.Duration, again bool) (Result, error) {
	g := grant{owner: owner, ttl: ttl}
	if err := g.begin(ctx, s); err != nil {
		return Result{}, err
	}

	return g.result(g.acquireAll(ctx, ids, margin, again))
}

func (g *grant) acquireAll(ctx context.Context, ids []string, margin time.Duration, again bool) (Result, error) {
	var (
		s    = g.store
		seen Result
	)

	for contests, lost := 0, 0; contests < allContests; {
		start := time.Now()
		a, granted := g.askAll(ctx, ids, again)

		switch {
		case a.outcome == unknown:
			g.lose(start, a.err)

			if lost++; g.shape.full && lost < sendAttempts && backOff(ctx, lost) {
				continue
			}

			return Result{}, g.doubt(a.err)
		case a.outcome == refused && g.outdated(ctx, a.err):
			continue
		case a.err != nil:
			return Result{}, g.doubt(a.err)
		case len(a.rows) > 0 && granted:
			return s.whole(Result{Verdict: Granted, Sent: a.sent, Grants: g.complete(a.rows, ids)}, ids, margin)
		case len(a.rows) == 0:
			if err := g.createAll(ctx, ids); err != nil {
				return Result{}, g.doubt(err)
			}
		default:
			again, seen = true, Result{Verdict: Busy, LockID: a.rows[0].LockID, Row: a.rows[0].Row}
		}

		switch {
		case len(a.rows) > 0 && g.mine(seen.Row):
			if res, granted := g.settleAll(ctx, ids); granted {
				return s.whole(res, ids, margin)
			}
		case len(a.rows) > 0 && seen.Row.Held():
			if g.doubtful && !g.shape.full {
				return Result{}, g.doubt(nil)
			}

			return seen, nil
		}

		if contests++; len(a.rows) > 0 && !backOff(ctx, contests) {
			return Result{}, g.doubt(ended(ctx))
		}
	}

	if g.doubtful {
		return Result{}, g.doubt(nil)
	}

	if seen.LockID == "" {
		s.shape.found.Store(nil) // the table may have been partitioned since: the next request finds out
	}

	if seen.LockID == "" || g.shape.secured && !seen.Row.Held() {
		return Result{}, s.hidden(ids[0])
	}

	return seen, nil
}

// askAll asks once for all of the locks, by sqlGrantAllOrTell alone if it was refused before.
func (g *grant) askAll(ctx context.Context, ids []string, again bool) (a answer[LockRow], granted bool) {
	if g.shape.plain {
		a = persist(ctx, g.store, func(bool) answer[LockRow] { return g.askAllPlainly(ctx, g.requests(ids, g.owner), &granted) })

		return a, granted
	}

	args := []any{ids, Microseconds(g.ttl), g.owner}
	if !g.shape.full {
		args = args[:2]
	}

	ask := func(text string, scan scanFunc[LockRow]) answer[LockRow] {
		return persist(ctx, g.store, func(bool) answer[LockRow] {
			return askPrepared(ctx, g.store, prepared{text: text, args: args, rows: len(ids)}, scan)
		})
	}

	if text := g.shape.statements.grantAll(); text != "" && !again {
		if a = ask(text, scanGrantAll(ids)); a.err != nil || len(a.rows) > 0 {
			return a, true
		}
	}

	a = ask(g.shape.statements.grantAllOrTell(), scanGrantAllOrTell(&granted))

	return a, granted
}

// complete returns the rows of a grant in the order of the ids, and adds what the statement doesn't return, since
// it is the same in all.
func (g *grant) complete(locks []LockRow, ids []string) []LockRow {
	for i := range locks {
		if row := &locks[i].Row; g.shape.full && !g.shape.plain {
			row.Owner, row.AcquiredAt = g.owner, row.Now
		}
	}

	sorted := make([]LockRow, len(ids))

	for _, lock := range locks {
		i, found := slices.BinarySearch(ids, lock.LockID)
		if !found || len(locks) != len(ids) { // the table changes them
			slices.SortFunc(locks, func(a, b LockRow) int { return cmp.Compare(a.LockID, b.LockID) })

			return locks
		}

		sorted[i] = lock
	}

	return sorted
}

// requests are those for each of several locks.
func (g *grant) requests(ids []string, owner string) []request {
	return valuesOf(ids, func(id *string) request {
		return request{shape: g.shape, id: *id, owner: owner, ttl: Microseconds(g.ttl)}
	})
}

// createAll creates those of the locks that aren't there.
func (g *grant) createAll(ctx context.Context, ids []string) error {
	if g.shape.plain {
		return g.createAllPlainly(ctx, ids)
	}

	for _, a := range g.store.lanes.create.several(ctx, g.requests(ids, "")) {
		// Another transaction that creates one is waited for by asking again.
		if a.err != nil && !Passing(a.err) {
			return a.err
		}
	}

	return nil
}

// settleAll is settle of several locks: all were granted by the attempt, or none.
func (g *grant) settleAll(ctx context.Context, ids []string) (Result, bool) {
	for i, owner := range g.lost {
		res := Result{Verdict: Granted, Sent: g.firstSent}

		for k, a := range g.store.lanes.settle.several(ctx, g.requests(ids, owner)) {
			if a.err != nil || len(a.rows) == 0 {
				break
			}

			res.Grants = append(res.Grants, LockRow{ids[k], a.rows[0]})
			res.Later = a.sent.Sub(g.firstSent)
		}

		if len(res.Grants) == len(ids) {
			g.owner, g.lost = owner, append(g.lost[:i:i], g.lost[i+1:]...)

			return res, true
		}
	}

	return Result{}, false
}

// whole is the result of a grant of all. Its Row is the one whose lease ends first.
func (s *Store) whole(res Result, ids []string, margin time.Duration) (Result, error) {
	res.Row = res.Grants[0].Row
	for _, granted := range res.Grants[1:] {
		if granted.Row.ExpiresAt.Before(res.Row.ExpiresAt) {
			res.Row = granted.Row
		}
	}

	switch {
	case len(res.Grants) < len(ids):
		return res, fmt.Errorf("%w: it let %d of %d locks be granted (a trigger?)", ErrInvalidTable, len(res.Grants), len(ids))
	case res.Lease() <= margin:
		return res, errCut(res, margin)
	}

	return res, nil
}

// markHeld leaves a mark on a lock that is held, as a refused claim does. It passes over a row that
// another transaction has locked. That one may release the lock, and not see the mark.
var markHeld = verb{
	given: parameters{paramID, paramMark, paramSignature},
	many: changeMany(`n.now, (extract(epoch FROM n.now) {*} 1000000)::bigint AS us, {lazy} AS lazy
      FROM (SELECT {now} AS now OFFSET 0) AS n`,
		`l.expires_at {>} {now}`, "", `contended_until = `+sqlMark, `true, r.n`),
	six: true,
}

// MarkHeld leaves a mark on the lock if it is held, and reports whether it did. On three columns it
// leaves none.
func (s *Store) MarkHeld(ctx context.Context, id string, mark Mark) (bool, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil || !sh.full || sh.plain {
		return false, err
	}

	req := request{shape: sh, id: id, mark: Microseconds(mark.For), signature: mark.Signature}
	a := persist(ctx, s, func(bool) answer[one[bool]] { return s.lanes.markHeld.askAgain(ctx, []request{req}) })
	if a.outcome == refused && outdated(a.err) {
		if _, ok := s.changed(ctx, sh); ok {
			return s.MarkHeld(ctx, id, mark)
		}
	}

	return len(a.rows) == 1, a.err
}
