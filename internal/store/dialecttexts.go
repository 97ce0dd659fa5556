package store

// The plain dialect finds a row by its primary key alone, and changes one lock in a statement. A statement
// has three parts:
//
//   - c computes what isn't immutable: the clock, the end of the lease, the floor. A distributed engine refuses
//     such functions in an UPDATE.
//   - got changes the row by the columns of c, and returns columns alone.
//   - The SELECT computes what else is returned.
//
// All of it is about one id, so an engine that spreads the table by lock_id runs all of it on the node of the
// row: by that node's clock, timeline and commit. docs/adr/0012-a-plain-dialect.md shows for each verb why
// the clock may be read before a wait for the row.

const (
	// sqlPlain waits for the row, as sqlOne does.
	sqlPlain = `
WITH c AS MATERIALIZED (
    ` + sqlPlainOnce + `
), got AS (
    UPDATE {table} AS l
       SET {set}
      FROM c
     WHERE l.lock_id {=} {lock_id}
       AND {where}
    RETURNING l.*
)
SELECT {returning}
  FROM got AS l, c`

	// sqlPlainShy passes over a row that another transaction has locked.
	sqlPlainShy = `
WITH c AS MATERIALIZED (
    ` + sqlPlainOnce + `
), found AS MATERIALIZED (
    SELECT l.lock_id
      FROM c, {table} AS l
     WHERE l.lock_id {=} {lock_id}
       AND {where}
       {lock} OF l SKIP LOCKED
), got AS (
    UPDATE {table} AS l
       SET {set}
      FROM c, found AS f
     WHERE l.lock_id {=} f.lock_id
       AND l.lock_id {=} {lock_id}
       AND {where}
    RETURNING l.*
)
SELECT {returning}
  FROM got AS l, c`

	// sqlPlainTogether is sqlPlainShy for several locks of one server, see [shards]. Of two requests for a lock it
	// carries out one. The ids stand in it once more, since Citus goes by them.
	sqlPlainTogether = `
WITH c AS MATERIALIZED (
    SELECT {now} AS now, {timeline} AS floor, {durable} AS durable
), found AS MATERIALIZED (
    SELECT r.*, c.now {+} ({span} {*} {us}) AS until` + sqlFoundFormer + `
      FROM c, {requests} WITH ORDINALITY AS r ({columns}, n), {table} AS l
     WHERE l.lock_id {=} ANY ($1::{text}[])
       AND l.lock_id {=} r.lock_id
       AND {where}
       {lock} OF l SKIP LOCKED
), got AS (
    UPDATE {table} AS l
       SET {set}
      FROM c, found AS r
     WHERE l.lock_id {=} ANY ($1::{text}[])
       AND l.lock_id {=} r.lock_id
       AND {where}
    RETURNING l.*, r.n AS pglocker_n, r.former AS pglocker_former
)
SELECT {returning}
  FROM got AS l, c`

	// sqlPlainOnce reads the clock once. until is {span} microseconds later.
	sqlPlainOnce = `SELECT n.now, n.now {+} ({span} {*} {us}) AS until, {timeline} AS floor, {durable} AS durable
      FROM (SELECT {now} AS now OFFSET 0) AS n`

	sqlPlainGranted = `generation = ` + sqlNext + `,
           expires_at = c.until{six},
           owner = {owner},
           acquired_at = c.now{end}`

	// sqlPlainFormer is sqlFormer by the request's id, which tells the node.
	sqlPlainFormer = `{six}(SELECT s.generation FROM {table} AS s WHERE s.lock_id {=} {lock_id} AND s.owner IS NOT NULL){three}NULL::bigint{end}`

	sqlPlainHeld = `l.expires_at {>} c.now`

	// sqlPlainCreate makes a free row, and changes none. Its expiry is the clock of the node that plans it. No
	// clock that is less than a minute behind takes the lock for held.
	sqlPlainCreate = `
WITH got AS (
    INSERT INTO {table} AS l (` + sqlFreeColumns + `)
    VALUES ({lock_id}, {generation}, {began} {-} interval '1 minute')
    ON CONFLICT DO NOTHING
    RETURNING l.*
)
SELECT {row}, {tag}
  FROM got AS l`

	// sqlPlainGuard is sqlGuard, and an update of no row. An engine that commits on several nodes has only those
	// that were written to confirm. A node that crashed after a guard, and so forgot its lock, would not be asked.
	sqlPlainGuard = `
WITH written AS (
    UPDATE {table} AS l
       SET generation = l.generation
     WHERE l.lock_id {=} $1
       AND l.generation {<} 0
    RETURNING l.generation
)` + sqlGuard

	// sqlPlainTerm is logTerm of a row that was read before.
	sqlPlainTerm = `
INSERT INTO {table} AS l (lock_id, generation, expires_at{six}, owner, acquired_at{end})
VALUES ({lock_id}, {generation}, {now}{six}, {owner}, 'epoch'::{timestamptz} {+} ({seen} {*} {us}){end})
    ON CONFLICT (lock_id) DO UPDATE
   SET generation = excluded.generation, expires_at = excluded.expires_at{six},
       owner = excluded.owner, acquired_at = excluded.acquired_at{end}
 WHERE l.generation {<} excluded.generation
RETURNING true`
)

// plainVerb is a verb in the plain dialect.
type plainVerb struct {
	given            parameters
	span, set, where string
	// returning is followed by a tag, which tells one of several requests, unless it is untagged.
	returning string
	untagged  bool
	// lock is the row lock, {lock} unless it is another.
	lock string
	// text is the whole of a statement that is none of sqlPlain.
	text string
}

// plainVerbs are all that the dialect has.
var plainVerbs = map[*verb]plainVerb{
	&acquire:     {given: acquire.given, span: `{ttl}`, set: sqlPlainGranted, where: `l.expires_at {<=} c.now`, returning: `{row}, {former}`},
	&refresh:     {given: refresh.undated, span: `{ttl}`, set: sqlPlainGranted, where: sqlOfGeneration, returning: `{row}`},
	&settle:      {given: settle.given, span: `0::bigint`, set: sqlUnchanged, where: `l.owner {=} {owner} AND ` + sqlPlainHeld, returning: `{row}`},
	&release:     plainRelease,
	&releaseSlot: plainRelease, // of a row that the full dialect left
	&unwanted:    {given: unwanted.given, span: `0::bigint`, set: with(sqlFreed, "{until}", `c.until`), where: sqlOfOwners, returning: `false`},
	&force: {
		given: parameters{paramID, paramGeneration, paramReason}, span: `0::bigint`, set: with(sqlFreed, "{until}", `c.until`), where: sqlOfGeneration,
		returning: `({forced} IS NULL)`,
	},
	&renew: {
		given: renew.given, span: `{ttl}`, set: `expires_at = greatest(l.expires_at, c.until)`,
		where: sqlOfGeneration + ` AND ` + sqlPlainHeld, returning: `{tag}, {iso}` + sqlExpiresAt + `{/iso}, {began}`, untagged: true,
		lock: `{lock_expiry}`,
	},
	&create: {given: parameters{paramID, paramGeneration}, text: sqlPlainCreate},
	&get:    {given: get.given, text: sqlGetOne},
	&look:   {given: look.given, text: sqlPrimary + sqlGetOne},
	&held: {given: held.given, text: sqlPrimary + `
SELECT 1::bigint
  FROM {table} AS l
 WHERE l.lock_id {=} {lock_id}
   AND ` + sqlStillHeld},
	&resign:  {given: resign.given, text: resign.one},
	&logTerm: {given: parameters{paramID, paramGeneration, paramSeen, paramOwner}, text: sqlPlainTerm},
}

var plainRelease = plainVerb{
	given: parameters{paramID, paramGeneration, paramHold}, span: `{hold}`,
	set: with(sqlFreed, "{until}", `c.until`), where: sqlOfGeneration, returning: `false`,
}

// plainUnwantedLast is sqlUnwantedLast.
var plainUnwantedLast = plainVerb{
	given: unwanted.given,
	span:  `0::bigint`,
	set: with(`generation = CASE WHEN {of_owners} THEN `+sqlNext+` ELSE l.generation END,
           expires_at = CASE WHEN {of_owners} THEN c.until ELSE l.expires_at END,
           acquired_at = CASE WHEN {of_owners} THEN NULL ELSE l.acquired_at END,
           owner = CASE WHEN {of_owners} THEN NULL ELSE l.owner END`, "{of_owners}", sqlOfOwners),
	where:     `l.generation {>} 0`,
	returning: `l.owner IS NULL`,
}
