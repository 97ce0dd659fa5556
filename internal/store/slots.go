package store

import "strings"

// A family is the rows of one semaphore or one read-write lock. Their ids have a prefix in common,
// such as "pglocker:semaphore:NAME:", and end with a part:
//
//	gate     every grant in the family changes it; waiters leave their marks on it
//	1, 2...  the slots: permits, or readers
//	w        the writer
//	intent   held while a writer waits, for fairness alone
//
// Slots are made free, one after the other, and never deleted. So all are found by walking from 1
// until one is missing.
const (
	PartGate   = "gate"
	PartWriter = "w"
	PartIntent = "intent"

	prefixSemaphore = "pglocker:semaphore:"
	prefixRWLock    = "pglocker:rwlock:"
)

// GateOf is the id of the gate of the family that a row belongs to, or "" if it belongs to none.
func GateOf(id string) string {
	if !strings.HasPrefix(id, prefixSemaphore) && !strings.HasPrefix(id, prefixRWLock) {
		return ""
	}

	return id[:strings.LastIndexByte(id, ':')+1] + PartGate
}

// sqlWalk reads all rows of a {family}, each by the primary key. i is the number of a slot, 0 is the
// writer, -1 the intent, -2 the gate. columns are those of walk.
const sqlWalk = `
WITH RECURSIVE walk AS (
    SELECT p.i, p.part, l.*
      FROM (VALUES ('-2'::bigint, '` + PartGate + `'::{text}), ('-1'::bigint, '` + PartIntent + `'::{text}),
                   (0::bigint, '` + PartWriter + `'::{text}), (1::bigint, '1'::{text})) AS p (i, part),
           LATERAL (SELECT ` + sqlWalked + `
                      FROM {table} AS l
                     WHERE l.lock_id {=} ({family}::{text} {||} p.part)
                    OFFSET 0) AS l
     UNION ALL
    SELECT w.i {+} 1, (w.i {+} 1)::{text}, l.*
      FROM walk AS w,
           LATERAL (SELECT ` + sqlWalked + `
                      FROM {table} AS l
                     WHERE l.lock_id {=} ({family}::{text} {||} (w.i {+} 1)::{text})
                    OFFSET 0) AS l
     WHERE w.i {>} 0
)`

const sqlWalked = `l.tableoid AS relation, l.ctid AS row_version, l.generation, l.expires_at` +
	`{six}, l.owner, l.acquired_at, l.contended_until{end}`

// slots takes {want} slots of a family of which {permits} may be held, or with {writes} = 1 the
// writer's row, where {permits} and {want} are 1 and nothing may be held. A reader is kept out by a
// writer and by an intent, which count as {permits} slots. With {from}, the writer of that
// generation takes a slot in exchange for its row, past any intent (a downgrade). {from} = -1 goes
// past an intent, too.
//
// What is held is counted in the statement's snapshot. Every grant changes the gate, and this one
// is made only if the gate still has the generation of the snapshot: it waits for the gate's row,
// whose newest version is checked again (EvalPlanQual). So no grant is missing in the count. A
// release or an end of a lease that is missing makes it too large, and no grant too many.
//
// One thing could make it too small: a lease that looks over, while its renewal is being committed
// or a guard's transaction keeps it. Such a row counts as free only if this statement can lock it,
// unchanged. Rows that were released (owner IS NULL) can't be renewed or guarded; three columns
// don't tell, so all are locked there. None of these locks is waited for. The gate comes first, so
// that of several grants only one locks slots.
//
// A refused request locks nothing. The token is the gate's new generation, above those of all rows
// that it takes. The last column but one is 0 for a granted row. Otherwise there is one row, that in
// the way whose lease ends first, or the gate's, or none if the family has no gate:
//
//	1  the gate was changed: ask again
//	2  rows are missing, and have to be created
//	3  too much is held
//	4  {from} is over
//	5  another transaction has a row locked
var slots = verb{
	given: parameters{paramFamily, paramTTL, paramPermits, paramWant, paramWrites, paramFrom, paramOwner},
	one: sqlWalk + `, c AS MATERIALIZED (
    SELECT {now} AS now
), live AS MATERIALIZED (
    SELECT w.*, w.expires_at {>} c.now AS live, w.i {=} 0 AND w.generation {=} {from} AS mine
      FROM walk AS w, c
), counted AS MATERIALIZED (
    SELECT s.*,
           s.live AND NOT s.mine AS busy,
           CASE WHEN s.i {=} '-2'::bigint THEN 0
                WHEN s.i {=} '-1'::bigint AND ({writes} {=} 1 OR {from} {<>} 0) THEN 0
                WHEN s.i {<=} 0 THEN {permits}
                ELSE 1
           END AS weight,
           CASE WHEN s.i {>=} 0 THEN s.mine OR NOT s.live{six} AND s.owner IS NOT NULL{end}
                ELSE s.i {=} '-1'::bigint AND s.live AND {writes} {=} 1
           END AS checked,
           s.i {>=} 0 AND NOT (s.live AND NOT s.mine) AND (s.i {=} 0) {=} ({writes} {=} 1) AS usable
      FROM live AS s
), total AS MATERIALIZED (
    SELECT {family}::{text} {||} '` + PartGate + `' AS gate,
           pg_catalog.max(CASE WHEN s.i {=} '-2'::bigint THEN s.generation END) AS generation,
           {six}pg_catalog.max(CASE WHEN s.i {=} '-2'::bigint THEN s.contended_until END){three}NULL::{timestamptz}{end} AS mark,
           pg_catalog.sum(CASE WHEN s.busy THEN s.weight ELSE 0 END)::bigint AS busy,
           pg_catalog.sum(CASE WHEN s.checked THEN s.weight ELSE 0 END)::bigint AS checked,
           pg_catalog.count(CASE WHEN s.usable THEN 1 END) AS usable,
           pg_catalog.count(CASE WHEN s.i {>} 0 THEN 1 END) AS slots,
           pg_catalog.bool_or({from} {<=} 0 OR s.mine AND s.live) AS current,
           pg_catalog.bool_or(s.i {=} '-1'::bigint AND s.live) AS intended
      FROM counted AS s
), gate AS MATERIALIZED (
    SELECT l.generation
      FROM total AS t, {table} AS l
     WHERE l.lock_id {=} t.gate
       AND l.generation {=} t.generation
       AND t.current
       AND (t.busy {+} {want}) {<=} {permits}
       AND t.usable {>=} {want}
       {lock} OF l
), needed AS (
    SELECT s.* FROM counted AS s WHERE s.checked
     UNION ALL
    (SELECT s.* FROM counted AS s WHERE s.usable AND NOT s.checked ORDER BY s.i LIMIT {want})
), found AS MATERIALIZED (
    SELECT n.*
      FROM gate AS g, needed AS n,
           LATERAL (SELECT l.tableoid AS relation, l.ctid AS row_version
                      FROM {table} AS l
                     WHERE l.lock_id {=} ({family}::{text} {||} n.part)
                       AND g.generation {>} 0
                       {lock} SKIP LOCKED) AS f
     WHERE f.row_version {=} n.row_version
       AND f.relation {=} n.relation
), ready AS MATERIALIZED (
    SELECT f.above
      FROM total AS t,
           (SELECT pg_catalog.max(f.generation) AS above,
                   pg_catalog.count(CASE WHEN f.usable THEN 1 END) AS usable,
                   coalesce(pg_catalog.sum(CASE WHEN f.checked THEN f.weight ELSE 0 END)::bigint, 0) AS checked
              FROM found AS f) AS f
     WHERE (t.busy {+} (t.checked {-} f.checked) {+} {want}) {<=} {permits}
       AND f.usable {>=} {want}
), passed AS (
    UPDATE {table} AS l
       SET generation = greatest(l.generation {+} 1, r.above {+} 1, {floor})
      FROM ready AS r
     WHERE l.lock_id {=} ({family}::{text} {||} '` + PartGate + `')
    RETURNING l.generation AS token, {now} AS now
), granted AS (
    UPDATE {table} AS l
       SET generation = p.token,
           expires_at = p.now {+} ({ttl} {*} {us}){six},
           owner = {owner},
           acquired_at = p.now{end}
      FROM passed AS p, (SELECT f.* FROM found AS f WHERE f.usable ORDER BY f.i LIMIT {want}) AS f
     WHERE l.ctid {=} f.row_version
       AND l.tableoid {=} f.relation
    RETURNING f.i, l.generation, l.expires_at{six}, l.owner, l.acquired_at, l.contended_until{end}, {durable} AS durable
), freed AS (
    UPDATE {table} AS l
       SET ` + with(sqlFreed, "{until}", "p.now") + `
      FROM passed AS p, found AS f, total AS t
     WHERE (f.mine OR f.i {=} '-1'::bigint)
       AND l.ctid {=} f.row_version
       AND l.tableoid {=} f.relation
    RETURNING {six}CASE WHEN f.mine AND t.mark {>} {now} THEN pg_catalog.pg_notify('{channel}', t.gate) END{three}NULL{end}
)
SELECT {row}, l.i, 0, t.slots, t.mark, t.intended, l.durable
  FROM granted AS l, total AS t
 UNION ALL
SELECT {row}, l.i,
       CASE WHEN NOT t.current THEN 4
            WHEN (t.busy {+} {want}) {>} {permits} THEN 3
            WHEN t.usable {<} {want} THEN 2
            WHEN EXISTS (SELECT FROM gate) THEN 5
            ELSE 1
       END, t.slots, t.mark, t.intended, NULL::{text}
  FROM total AS t,
       (SELECT s.*
          FROM counted AS s
         WHERE s.i {=} '-2'::bigint
            OR s.busy AND s.weight {>} 0
         ORDER BY s.weight DESC, s.expires_at
         LIMIT 1) AS l
 WHERE t.generation IS NOT NULL
   AND NOT EXISTS (SELECT FROM granted)`,
}
