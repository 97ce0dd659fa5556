package store

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgtype"
)

// handSlots hands slots of one family over: held -> held by {owner}, each with a new token. It is for
// slots that their holders would release now.
//
// It is no grant of one permit more: as many are held after it as before, in every snapshot. So no grant is
// made in vain because of it. It is made only if no more than {permits} are held, this one included: in its
// snapshot, and no other has been granted since then, which the gate tells. Others may go by more permits. A
// row that has an owner counts, even if its lease looks over: a renewal may be being committed. One without
// counts until its minimum hold is over. A writer and an intent exclude it.
//
// It locks the slots first, and passes over one that another transaction has locked. A slot must be held
// still when it is locked: from then on no grant counts it as free. Then it waits for the gate, which
// gives the tokens. Last in a row is the mark on the gate. With {lazily} = 1, the commit
// isn't waited for, see [slots].
var handSlots = verb{
	given: parameters{paramID, paramOfGate, paramTTL, paramGeneration, paramPermits, paramLazily, paramOwner},
	many: `
WITH RECURSIVE family AS MATERIALIZED (
    SELECT pg_catalog.max(r.family) AS prefix, pg_catalog.max(r.lazily) AS lazily
      FROM {requests} AS r ({columns})
), walk` + strings.NewReplacer(
		"\nWITH RECURSIVE walk", "", "{family}::{text}", "(SELECT f.prefix FROM family AS f)",
	).Replace(sqlWalk) + `, total AS MATERIALIZED (
    SELECT pg_catalog.count(CASE WHEN w.i {>} 0 AND (w.owner IS NOT NULL OR w.expires_at {>} {now}) THEN 1 END) AS held,
           pg_catalog.count(CASE WHEN w.i {=} 0 AND w.owner IS NOT NULL
                                   OR w.i {<=} 0 AND w.i {<>} '-2'::bigint AND w.expires_at {>} {now} THEN 1 END) AS excluded,
           pg_catalog.max(CASE WHEN w.i {=} '-2'::bigint THEN w.contended_until END) AS mark,
           pg_catalog.max(CASE WHEN w.i {=} '-2'::bigint THEN w.expires_at END) AS granted_last
      FROM walk AS w
), found AS MATERIALIZED (
    SELECT l.*, r.*
      FROM total AS t, {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version, l.expires_at
                      FROM {table} AS l
                     WHERE l.lock_id {=} r.lock_id
                       AND l.generation {=} r.generation
                       AND t.excluded {=} 0
                       AND t.held {<=} r.permits
                       {lock} SKIP LOCKED) AS l
), mine AS MATERIALIZED (
    SELECT f.*, pg_catalog.row_number() OVER (ORDER BY f.n) AS nth
      FROM found AS f
     WHERE f.expires_at {>} {now}
), all_mine AS MATERIALIZED (
    SELECT pg_catalog.max(m.generation) AS above, pg_catalog.count(*) AS slots, {timeline} AS floor
      FROM mine AS m
), passed AS (
    UPDATE {table} AS l
       SET generation = greatest(l.generation {+} m.slots, m.above {+} m.slots, m.floor {+} m.slots)
      FROM all_mine AS m, total AS t
     WHERE l.lock_id {=} ((SELECT f.prefix FROM family AS f) {||} '` + PartGate + `')
       AND m.slots {>} 0
       AND l.expires_at {=} t.granted_last
    RETURNING l.generation {-} m.slots AS token, {now} AS now,
              CASE WHEN (SELECT f.lazily FROM family AS f) {=} 1 THEN {lazy} ELSE {durable} END AS durable
)
UPDATE {table} AS l
   SET generation = p.token {+} m.nth,
       expires_at = p.now {+} (m.ttl {*} {us}),
       owner = m.owner,
       acquired_at = p.now
  FROM passed AS p, mine AS m, total AS t
 WHERE l.ctid {=} m.row_version
   AND l.tableoid {=} m.part
RETURNING {row}, m.n, t.mark, p.durable`,
	six: true,
}

// handOverTries is how often a hand-over is asked for at most. A grant may have come before it each time.
const handOverTries = 3

// handed is the row of a slot that was handed over, and the mark on the gate.
type handed struct {
	row  Row
	mark time.Time
	// lazy: the commit wasn't waited for.
	lazy bool
}

func scanHanded(behind *tag) scanFunc[handed] {
	var (
		s       rowScan
		mark    pgtype.Timestamptz
		durable *string
	)

	s.init(behind, behind.column, &mark, &durable)

	return func(from scanner) (h handed, err error) {
		h.row, err = s.scan(from)
		h.mark, h.lazy = mark.Time.UTC(), durable != nil && *durable == "off"

		return h, err
	}
}

// HandOverSlot releases a slot of that generation and grants it to owner for ttl, if no
// more than permits are held, this one included. The statement hands over all slots of the family for
// which that is asked at the same time. Otherwise nothing has changed, and the verdict is Busy. So it is
// on three columns. Grants of the result is the slot, and Mark the mark on the gate. Errors are as for
// [Store.Acquire].
func (s *Store) HandOverSlot(
	ctx context.Context, id string, generation int64, owner string, ttl, margin time.Duration, permits int, contended bool,
) (Result, error) {
	sh, err := s.shapeOf(ctx)
	if err != nil || !sh.full || sh.plain {
		return Result{Verdict: Busy}, err
	}

	gate, leave := s.gates.use(s, GateOf(id))
	defer leave()

	req := request{
		shape: sh, id: id, gate: GateOf(id), generation: generation, owner: owner, ttl: Microseconds(ttl),
		permits: int64(permits),
	}
	if contended {
		req.lazily = 1
	}

	var a answer[handed]

	for tries := 0; tries < handOverTries && a.err == nil && len(a.rows) == 0; tries++ {
		a = gate.handOvers.write(ctx, req, false)
	}

	switch {
	case a.outcome == unknown:
		return Result{Stray: []string{owner}}, a.err
	case a.err != nil:
		return Result{}, a.err
	case len(a.rows) == 0:
		return Result{Verdict: Busy}, nil
	}

	res := Result{Verdict: Granted, Row: a.rows[0].row, Mark: a.rows[0].mark, Sent: a.sent}
	res.Grants = []LockRow{{id, res.Row}}

	if a.rows[0].lazy {
		if err := s.settleGrants(ctx, sh, owner, res.Grants); err != nil {
			return Result{Stray: []string{owner}}, err
		}
	}

	if res.Lease() <= margin {
		res.Stray = []string{owner}

		return res, errCut(res, margin)
	}

	return res, nil
}

// IsSlot reports whether a lock is a slot of a family.
func IsSlot(id string) bool {
	part := id[strings.LastIndexByte(id, ':')+1:]

	return GateOf(id) != "" && part != "" && part[0] >= '1' && part[0] <= '9'
}
