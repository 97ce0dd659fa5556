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

// sqlGateMoves changes the gate so that no grant is made by an older snapshot. It is never free for
// longer than now: another program may have written 'infinity'.
const sqlGateMoves = `expires_at = greatest(least(l.expires_at, {now}) {+} ('1'::bigint {*} {us}), {now})`

const sqlWalked = `l.tableoid AS relation, l.ctid AS row_version, l.generation, l.expires_at` +
	`{six}, l.owner, l.acquired_at, l.contended_until{end}`

// slots takes {want} slots of a family of which {permits} may be held, or with {writes} = 1 the
// writer's row, where {permits} and {want} are 1 and nothing may be held. A reader is kept out by a
// writer and by an intent, which count as {permits} slots. With {origin}, the writer of that
// generation takes a slot in exchange for its row, past any intent (a downgrade). {origin} = -1 goes
// past an intent, too.
//
// Requests for one slot each, with the same {permits}, go together. The first of them are granted one,
// as many as are free, each with a token of its own.
//
// What is held is counted in the statement's snapshot. Every grant changes the gate, and this one
// is made only if the gate is as the last grant in the snapshot left it: it waits for the gate's row,
// whose newest version is checked again (EvalPlanQual). So no grant is missing in the count. A
// release or an end of a lease that is missing makes it too large, and no grant too many. A hand-over
// leaves that count as it is (handSlots): it gives the gate a new generation, and leaves expires_at,
// which each grant changes.
//
// One thing could make it too small: a lease that looks over, while its renewal is being committed
// or a guard's transaction keeps it. Such a row counts as free only if this statement can lock it,
// unchanged. Rows that were released (owner IS NULL) can't be renewed or guarded; three columns
// don't tell, so all are locked there. None of these locks is waited for. The gate comes first, so
// that of several grants only one locks slots.
//
// With {lazily} = 1, the commit isn't waited for: the gate is locked until it is. The caller settles the
// grants after it (settleGrants). So requests that follow each other at the gate don't wait for the disk
// one after the other.
//
// A refused statement locks nothing. The last token is the gate's new generation, and the first is above
// those of all rows that are taken. The state is 0 for a granted row. For each request that was granted
// none, there is one row, that in the way whose lease ends first, or the gate's, or none if the family has
// no gate:
//
//	1  the gate was changed: ask again
//	2  rows are missing, and have to be created
//	3  too much is held
//	4  {origin} is over
//	5  another transaction has a row locked
//	6  the requests before it were granted: ask again
var slots = verb{
	given: parameters{paramFamily, paramTTL, paramPermits, paramWant, paramWrites, paramOrigin, paramLazily, paramOwner},
	many: sqlWalkAsked + `, c AS MATERIALIZED (
    SELECT {now} AS now
), live AS MATERIALIZED (
    SELECT w.*, w.expires_at {>} c.now AS live, w.i {=} 0 AND w.generation {=} {origin} AS mine
      FROM walk AS w, asked AS r, c
), counted AS MATERIALIZED (
    SELECT s.*,
           s.live AND NOT s.mine AS busy,
           CASE WHEN s.i {=} '-2'::bigint THEN 0
                WHEN s.i {=} '-1'::bigint AND ({writes} {=} 1 OR {origin} {<>} 0) THEN 0
                WHEN s.i {<=} 0 THEN {permits}
                ELSE 1
           END AS weight,
           CASE WHEN s.i {>=} 0 THEN s.mine OR NOT s.live{six} AND s.owner IS NOT NULL{end}
                ELSE s.i {=} '-1'::bigint AND s.live AND {writes} {=} 1
           END AS checked,
           s.i {>=} 0 AND NOT (s.live AND NOT s.mine) AND (s.i {=} 0) {=} ({writes} {=} 1) AS usable
      FROM live AS s, asked AS r
), total AS MATERIALIZED (
    SELECT r.family {||} '` + PartGate + `' AS gate, r.permits, r.want, r.want {*} r.requests AS most,
           t.*, {origin} {<=} 0 OR t.stands AS current
      FROM asked AS r, (
        SELECT pg_catalog.max(CASE WHEN s.i {=} '-2'::bigint THEN s.generation END) AS generation,
               pg_catalog.max(CASE WHEN s.i {=} '-2'::bigint THEN s.expires_at END) AS granted_last,
               {six}pg_catalog.max(CASE WHEN s.i {=} '-2'::bigint THEN s.contended_until END){three}NULL::{timestamptz}{end} AS mark,
               pg_catalog.sum(CASE WHEN s.busy THEN s.weight ELSE 0 END)::bigint AS busy,
               pg_catalog.sum(CASE WHEN s.checked THEN s.weight ELSE 0 END)::bigint AS checked,
               pg_catalog.count(CASE WHEN s.usable THEN 1 END) AS usable,
               pg_catalog.count(CASE WHEN s.i {>} 0 THEN 1 END) AS slots,
               pg_catalog.bool_or(s.mine AND s.live) AS stands,
               pg_catalog.bool_or(s.i {=} '-1'::bigint AND s.live) AS intended
          FROM counted AS s) AS t
), gate AS MATERIALIZED (
    SELECT l.generation
      FROM total AS t, {table} AS l
     WHERE l.lock_id {=} t.gate
       AND l.expires_at {=} t.granted_last
       AND t.current
       AND (t.busy {+} t.want) {<=} t.permits
       AND t.usable {>=} t.want
       {lock} OF l
), needed AS (
    SELECT s.* FROM counted AS s WHERE s.checked
     UNION ALL
    (SELECT s.* FROM counted AS s WHERE s.usable AND NOT s.checked ORDER BY s.i LIMIT (SELECT t.most FROM total AS t))
), found AS MATERIALIZED (
    SELECT n.*
      FROM gate AS g, total AS t, needed AS n,
           LATERAL (SELECT l.tableoid AS relation, l.ctid AS row_version
                      FROM {table} AS l
                     WHERE l.lock_id {=} (pg_catalog.left(t.gate, '-4') {||} n.part)
                       AND g.generation {>} 0
                       {lock} SKIP LOCKED) AS f
     WHERE f.row_version {=} n.row_version
       AND f.relation {=} n.relation
), ready AS MATERIALIZED (
    SELECT t.gate, f.above, t.want,
           least(f.usable, t.most, t.permits {-} t.busy {-} (t.checked {-} f.checked)) {/} t.want AS requests
      FROM total AS t,
           (SELECT pg_catalog.max(f.generation) AS above,
                   pg_catalog.count(CASE WHEN f.usable THEN 1 END) AS usable,
                   coalesce(pg_catalog.sum(CASE WHEN f.checked THEN f.weight ELSE 0 END)::bigint, 0) AS checked
              FROM found AS f) AS f
     WHERE (t.busy {+} (t.checked {-} f.checked) {+} t.want) {<=} t.permits
       AND f.usable {>=} t.want
), passed AS (
    UPDATE {table} AS l
       SET generation = greatest(l.generation, r.above, {timeline}) {+} r.requests,
           ` + sqlGateMoves + `
      FROM ready AS r
     WHERE l.lock_id {=} r.gate
    RETURNING l.generation {-} r.requests AS token, r.requests, r.want, {now} AS now
), granted AS (
    UPDATE {table} AS l
       SET generation = p.token {+} r.n,
           expires_at = p.now {+} ({ttl} {*} {us}){six},
           owner = {owner},
           acquired_at = p.now{end}
      FROM passed AS p,
           (SELECT f.*, pg_catalog.row_number() OVER (ORDER BY f.i) {-} 1 AS nth FROM found AS f WHERE f.usable) AS f,
           {requests} WITH ORDINALITY AS r ({columns}, n)
     WHERE r.n {<=} p.requests
       AND r.n {=} (f.nth {/} p.want {+} 1)
       AND l.ctid {=} f.row_version
       AND l.tableoid {=} f.relation
    RETURNING f.i, l.generation, l.expires_at{six}, l.owner, l.acquired_at, l.contended_until{end},
              CASE WHEN (SELECT a.lazily FROM asked AS a) {=} 1 THEN {lazy} ELSE {durable} END AS durable, r.n
), freed AS (
    UPDATE {table} AS l
       SET ` + with(sqlFreed, "{until}", "p.now", "{floor}", "{timeline}") + `
      FROM passed AS p, found AS f, total AS t
     WHERE (f.mine OR f.i {=} '-1'::bigint)
       AND l.ctid {=} f.row_version
       AND l.tableoid {=} f.relation
    RETURNING {six}CASE WHEN f.mine AND t.mark {>} {now} THEN pg_catalog.pg_notify('{channel}', t.gate) END{three}NULL{end}
)
SELECT {row}, l.n, l.i, 0, t.slots, t.mark, t.intended, l.durable
  FROM granted AS l, total AS t
 UNION ALL
SELECT {row}, r.n, l.i,
       CASE WHEN EXISTS (SELECT FROM granted) THEN 6
            WHEN NOT t.current THEN 4
            WHEN (t.busy {+} t.want) {>} t.permits THEN 3
            WHEN t.usable {<} t.want THEN 2
            WHEN EXISTS (SELECT FROM gate) THEN 5
            ELSE 1
       END, t.slots, t.mark, t.intended, NULL::{text}
  FROM total AS t,
       (SELECT s.*
          FROM counted AS s
         WHERE s.i {=} '-2'::bigint
            OR s.busy AND s.weight {>} 0
         ORDER BY s.weight DESC, s.expires_at
         LIMIT 1) AS l,
       {requests} WITH ORDINALITY AS r ({columns}, n)
 WHERE t.generation IS NOT NULL
   AND r.n {>} (SELECT coalesce(pg_catalog.max(granted.n), 0) FROM granted)`,
}

// sqlWalkAsked is sqlWalk in a statement for several requests, which have a family in common.
var sqlWalkAsked = `
WITH RECURSIVE asked AS MATERIALIZED (
    SELECT pg_catalog.max(r.family) AS family, pg_catalog.max(r.permits) AS permits, pg_catalog.max(r.want) AS want,
           pg_catalog.max(r.writes) AS writes, pg_catalog.max(r.origin) AS origin,
           pg_catalog.max(r.lazily) AS lazily, pg_catalog.count(*) AS requests
      FROM {requests} AS r ({columns})
)` + strings.NewReplacer("\nWITH RECURSIVE ", ", ", "{family}::{text}", "(SELECT r.family FROM asked AS r)").Replace(sqlWalk)
