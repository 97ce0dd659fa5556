package store

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// claim is a waiter's: free -> held, or else held -> held with a mark, which says for {mark}
// microseconds from now, or up to MarkModulus fewer, that a waiter waits. The row lock makes that
// atomic against a release, which either comes first and leaves the lock free, or sees the mark and
// notifies. A mark alone needs no flush: a crash that loses it costs a poll.
//
// For one request it locks one row, and waits for it. The clock is read once (OFFSET 0), before the
// wait, so a lock may look held that has just become free. If the clock is set back during the
// wait, a lock could look free that another was granted meanwhile. So the clock is read again when
// PostgreSQL checks the row that it finds changed (EvalPlanQual), and if it is behind, nothing is
// found. A row that was only locked, or whose change was rolled back, isn't checked again: nobody
// was granted it. The last column is the mark that stood there before.
//
// For several, no row was changed since the snapshot. One grant makes the commit a synchronous one.
var claim = verb{
	given: parameters{paramID, paramTTL, paramMark, paramSignature, paramOwner},
	one: with(`
UPDATE {table} AS l
   SET {set}
  FROM (SELECT n.now, (extract(epoch FROM n.now) {*} 1000000)::bigint AS us,
               (SELECT s.contended_until FROM {table} AS s WHERE s.lock_id {=} {lock_id}) AS mark
          FROM (SELECT {now} AS now OFFSET 0) AS n
        OFFSET 0) AS c
 WHERE l.lock_id {=} {lock_id}
   AND c.now {<=} {now}
RETURNING {row},
          CASE WHEN l.owner {=} {owner} THEN {former} END,
          CASE WHEN l.owner {=} {owner} THEN {durable} ELSE {lazy} END,
          (l.owner {=} {owner}) IS TRUE,
          c.mark`, "{set}", with(sqlClaimed, "{free}", `l.expires_at {<=} c.now`)),
	many: with(`
WITH c AS MATERIALIZED (
    SELECT n.now, (extract(epoch FROM n.now) {*} 1000000)::bigint AS us, {timeline} AS floor
      FROM (SELECT {now} AS now OFFSET 0) AS n
), found AS MATERIALIZED (
    SELECT l.part, l.row_version, l.stood, l.former, l.expires_at {<=} c.now AS free, r.*
      FROM c, {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version, l.contended_until AS stood, l.expires_at,
                           CASE WHEN l.owner IS NOT NULL THEN l.generation END AS former
                      FROM {table} AS l
                     WHERE l.lock_id {=} r.lock_id
                       {lock} SKIP LOCKED) AS l
), flush AS MATERIALIZED (
    SELECT CASE WHEN pg_catalog.bool_or(found.free) THEN {durable} ELSE {lazy} END AS how
      FROM found
)
UPDATE {table} AS l
   SET {set}
  FROM found AS r, c, flush
 WHERE l.ctid {=} r.row_version
   AND l.tableoid {=} r.part
RETURNING {row}, CASE WHEN r.free THEN r.former END, r.n, r.free, r.stood`, "{set}", with(sqlClaimed, "{free}", `r.free`)),
	six: true,
}

// sqlClaimed grants the lock if it is {free}, or else leaves a mark.
const sqlClaimed = `generation = CASE WHEN {free} THEN ` + sqlNext + ` ELSE l.generation END,
       expires_at = CASE WHEN {free} THEN c.now {+} ({ttl} {*} {us}) ELSE l.expires_at END,
       owner = CASE WHEN {free} THEN {owner} ELSE l.owner END,
       acquired_at = CASE WHEN {free} THEN c.now ELSE l.acquired_at END,
       contended_until = CASE WHEN {free} THEN l.contended_until
                              ELSE ` + sqlMark + ` END`

// sqlMark is until when a mark stands.
const sqlMark = `c.now {+} (({ahead} {-} pg_catalog.mod(c.us {+} {ahead} {-} {signature}, {modulus})) {*} {us})`

// sqlAhead is how many microseconds from now a mark stands, before it is signed. It must not end
// the mark of a waiter that listens: then it takes that one's end, or up to a {modulus} later.
// (Where many poll, such a mark may outlast the listening waiter. That costs notifications.)
const sqlAhead = `(CASE WHEN l.contended_until {>} (c.now {+} ({mark} {*} {us}))
                                             THEN least((extract(epoch FROM l.contended_until {-} c.now) {*} 1000000)::bigint, {longest}) {+} {modulus} {-} 1
                                             ELSE {mark} END)`

// Mark says until when a process has a waiter. By the signature in its last digits a Locker knows its own,
// also where the reply to its statement was lost.
type Mark struct {
	// For is how long the mark stands, [LongestMark] at most. Zero leaves none. Where another
	// stands for longer, this one does too, or up to a [MarkModulus] longer.
	For time.Duration
	// Signature is below [MarkModulus].
	Signature int64
}

// MarkModulus is in microseconds. A mark may end up to this much earlier than was asked for.
const MarkModulus = 1 << 20

// LongestMark is how long a mark stands at most, but for a [MarkModulus].
const LongestMark = 10 * time.Second

// SignatureOf is the signature of a mark.
func SignatureOf(mark time.Time) int64 { return mark.UnixMicro() % MarkModulus }

// Claim is one attempt of a waiter. Like [Store.Acquire] it grants the lock if it is free. If not,
// it leaves a mark, by which the release notifies. It leaves none for a mark of no time and on
// three columns, where a failed attempt costs no write, nor if it had to be settled or didn't find
// the lock at first.
//
// The row of a failed attempt may be free: the lock was taken by another at the same moment, or
// freed right after. owner must be of this call alone.
func (s *Store) Claim(ctx context.Context, id, owner string, ttl, margin time.Duration, mark Mark) (Result, error) {
	g := grant{id: id, owner: owner, ttl: ttl}
	if err := g.begin(ctx, s); err != nil {
		return Result{}, err
	}

	return g.result(g.claim(ctx, margin, mark))
}

func (g *grant) claim(ctx context.Context, margin time.Duration, mark Mark) (Result, error) {
	s, sh, id := g.store, g.shape, g.id
	if sh.plain { // without marks
		return g.acquire(ctx, margin)
	}

	req := request{shape: sh, id: id, owner: g.owner, ttl: Microseconds(g.ttl), discard: true}
	lane := s.lanes.try

	if mark.For > 0 && sh.full {
		req.mark, req.signature = Microseconds(mark.For), mark.Signature
		lane = s.lanes.claim
	}

	start := time.Now()
	a := lane.write(ctx, req, false)

	// A request that was passed over asks again, unless there is no such lock.
	for a.err == nil && !a.waited && (len(a.rows) == 0 || !a.rows[0].granted && !a.rows[0].row.Held() && !a.rows[0].marked) {
		seen, err := s.look(ctx, sh, id)
		if err != nil {
			return Result{}, err
		}

		if seen.Verdict == NotFound {
			break
		}

		if lane == s.lanes.try && !seen.Row.Held() {
			s.shape.passedOver()
		}

		a = lane.write(ctx, req, true)
	}

	if a.outcome == unknown {
		g.lose(start, a.err)
	}

	switch {
	case a.outcome == unknown && sh.full && ctx.Err() == nil:
		// Ask again in the way that settles the doubt.
		return g.acquire(ctx, margin)
	case a.err != nil && a.outcome == refused && g.outdated(ctx, a.err):
		return g.acquire(ctx, margin)
	case a.err != nil:
		return Result{}, a.err
	case len(a.rows) == 0: // not there yet, or the clock was set back
		return g.acquire(ctx, margin)
	case a.rows[0].granted && a.rows[0].row.Remaining() <= margin: // it went by in a wait for the row
		g.over = true

		res, err := g.swap(ctx, State{Generation: a.rows[0].row.Generation}, margin)
		res.Row.AfterCrash = err == nil && res.Verdict == Granted && a.rows[0].row.AfterCrash

		return res, err
	case a.rows[0].marked && !a.rows[0].row.Held():
		// It became free while the claim waited for the row, and its release didn't see the mark.
		res, err := g.acquire(ctx, margin)
		if err == nil && res.Verdict == Busy {
			res.Mark, res.Marked = a.rows[0].mark, true
		}

		return res, err
	case a.rows[0].granted:
		return Result{Verdict: Granted, Row: a.rows[0].row, Mark: a.rows[0].mark, Sent: a.sent}, nil
	}

	return Result{Verdict: Busy, Row: a.rows[0].row, Mark: a.rows[0].mark, Marked: a.rows[0].marked}, nil
}

// attempted is the row of a try or a claim.
type attempted struct {
	row     Row
	granted bool
	mark    time.Time
	marked  bool
}

// attemptScan reads the rows of a try or a claim.
type attemptScan struct {
	grantScan
	granted bool
	mark    pgtype.Timestamptz
}

func scanTry(behind *tag) scanFunc[attempted] {
	s := new(attemptScan)
	s.init(behind, &s.former, behind.column, &s.granted)

	return func(from scanner) (attempted, error) {
		row, err := s.scan(from)

		return attempted{row: row, granted: s.granted, mark: row.ContendedUntil}, err
	}
}

func scanClaim(behind *tag) scanFunc[attempted] {
	s := new(attemptScan)
	s.init(behind, &s.former, behind.column, &s.granted, &s.mark)

	return func(from scanner) (attempted, error) {
		row, err := s.scan(from)

		return attempted{row: row, granted: s.granted, mark: s.mark.Time.UTC(), marked: !s.granted}, err
	}
}
