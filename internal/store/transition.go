package store

import "strings"

// A lock changes by transitions, one statement each. A transition is written once, as what it sets
// and where, for two statements: one for a single request, which waits for the row, and one for
// several, which doesn't. [render] fills in what stands in braces:
//
//   - {ttl}, {owner} and the like are [parameters] of the request;
//   - {clock} and {floor} are the database's clock and sqlFloor, read once for several requests;
//   - {row} are the columns of a [Row], and {lock} is the row lock of a batch;
//   - {six}...{three}...{end} is for tables of six columns, or of three;
//   - {=}, {now} and the like are PostgreSQL's own, see [qualified].
//
// Grants and renewals return the clock beside the expiry: it alone tells how much of a lease is left.

// sqlOne is a transition for one request. It locks one row, and waits for it where the row is as
// asked for in the statement's snapshot.
const sqlOne = `
UPDATE {table} AS l
   SET {set}
 WHERE l.lock_id {=} {lock_id}
   AND {where}
RETURNING {returning}`

// sqlFind locks the rows of several requests, in the order of the ids. It passes over a row that
// another transaction has locked: no request waits for what another one waits for. It passes over a
// row that was changed since the snapshot, too: its ctid leads to another version. So of two
// requests for a row, the second finds it changed. The ctid is one of a partition, where the table
// has some. n is the request's number, from 1. A LATERAL subquery that locks can't become a join,
// so the rows are looked up one by one, whatever the planner thinks of the table. {found} is what else
// is read of them.
const sqlFind = `
WITH c AS MATERIALIZED (
    SELECT {once}
), found AS MATERIALIZED (
    SELECT l.*, r.*
      FROM {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version{found}
                      FROM {table} AS l
                     WHERE l.lock_id {=} r.lock_id
                       AND {where}
                       {lock} SKIP LOCKED) AS l
)`

// sqlFoundFormer is sqlFormer of a row that sqlFind has locked.
const sqlFoundFormer = `,
                           {six}CASE WHEN l.owner IS NOT NULL THEN l.generation END{three}NULL::bigint{end} AS former`

// sqlChange changes the rows that sqlFind has locked.
const sqlChange = `
UPDATE {table} AS l
   SET {set}
  FROM found AS r, c
 WHERE l.ctid {=} r.row_version
   AND l.tableoid {=} r.part
RETURNING {returning}`

// change is sqlOne.
func change(set, where, returning string) string {
	return with(sqlOne, "{set}", set, "{where}", where, "{returning}", returning)
}

// changeMany is sqlFind and sqlChange. once is what all requests share; between may begin a CTE.
func changeMany(once, where, between, set, returning string) string {
	found := ""
	if set == sqlGranted {
		found = sqlFoundFormer
	}

	return with(sqlFind+between+sqlChange,
		"{once}", once, "{where}", where, "{found}", found, "{set}", set, "{returning}", returning)
}

// with fills holes of a text. A pair is a hole, in braces, and what fills it. It is for texts that are filled once, where
// a [strings.Replacer] takes longer to make than to use.
func with(text string, pairs ...string) string {
	var b strings.Builder
	b.Grow(2 * len(text))

	for {
		i := strings.IndexByte(text, '{')
		if i < 0 {
			b.WriteString(text)

			return b.String()
		}

		b.WriteString(text[:i])
		text = text[i:]

		hole, filling := "{", "{" // a brace that is none of the holes
		for n := 0; n < len(pairs); n += 2 {
			if strings.HasPrefix(text, pairs[n]) {
				hole, filling = pairs[n], pairs[n+1]

				break
			}
		}

		b.WriteString(filling)
		text = text[len(hole):]
	}
}

const (
	// sqlGrantOnce is what the grants of a batch share.
	sqlGrantOnce = `{now} AS now, {timeline} AS floor, {durable} AS durable`
	// sqlReleaseOnce is what the releases of a batch share.
	sqlReleaseOnce = `{now} AS now, {timeline} AS floor, {lazy} AS lazy`

	// sqlNext is the generation after a grant or a release.
	sqlNext = `greatest(l.generation {+} 1, {floor})`

	// sqlGranted makes {owner} the holder, for {ttl}.
	sqlGranted = `generation = ` + sqlNext + `,
       expires_at = {clock} {+} ({ttl} {*} {us}){six},
       owner = {owner},
       acquired_at = {clock}{end}`

	// sqlFreed ends a tenure. {until} is when the lock is free.
	sqlFreed = `generation = ` + sqlNext + `,
       expires_at = {until}{six},
       owner = NULL,
       acquired_at = NULL{end}`

	// sqlSeen refuses a status from before the present tenure: it shows the lock free since {seen},
	// in microseconds, or 0 for no status, and the tenure began later. Generations don't tell, if a
	// crash lost the release that the status shows and the next grant got its generation.
	sqlSeen = `{six}
   AND ({seen} {=} 0
        OR l.acquired_at IS NULL
        OR (extract(epoch FROM l.acquired_at) {*} 1000000)::bigint {<=} {seen}){end}`
)

// sqlFloor keeps generations unique across failovers: the server's timeline, which every promotion
// increases, in the bits above 40. A standby promoted without the last commits starts above every
// token that the old primary can have issued. pg_control_checkpoint() shows the old timeline right
// after a promotion. The name of the WAL file that is being written doesn't.
const sqlFloor = `((((('x' {||} pg_catalog.substr({walfile}, 1, 8))::bit(32)::bigint) {-} 1) {<<} 40) {+} 1)`

// sqlExpiresAt is the end of the lease as drivers can read it. None puts 'infinity', which another
// program may have written, into a time.Time.
const sqlExpiresAt = `greatest(least(l.expires_at, '9999-12-31 00:00:00+00'::{timestamptz}), '0001-01-01 00:00:00+00'::{timestamptz})`

// sqlRow are the columns of a [Row]. {began} is when the server received the statement. A holder
// counts its term from before it was sent, and so may count what the row shows from then, a wait
// for the row included.
const sqlRow = `l.generation, ` + sqlExpiresAt + `, ` +
	`{six}l.owner, l.acquired_at, l.contended_until{three}NULL::{text}, NULL::{timestamptz}, NULL::{timestamptz}{end}, ` +
	`{iso}{now}{/iso}, {began}`

// sqlDurable makes the commit of its statement a synchronous one where the default is weaker.
const sqlDurable = `CASE WHEN pg_catalog.current_setting('synchronous_commit') {<>} ALL (ARRAY['on', 'remote_apply'])
            THEN pg_catalog.set_config('synchronous_commit', 'on', true) END`

// sqlLazy doesn't wait for the commit. It is for releases at once and for marks alone. WAL is
// ordered: a later grant, which is flushed, brings the release with it. A crash that loses a
// release before that revives the lease, which then runs to its own end. On three columns it is
// sqlDurable: see sqlSeen.
const sqlLazy = `{six}pg_catalog.set_config('synchronous_commit', 'off', true){three}` + sqlDurable + `{end}`

// sqlNotifyWaiters notifies waiters where the row has a mark, and tells whether it did.
const sqlNotifyWaiters = `{six}(CASE WHEN l.contended_until {>} {now} THEN pg_catalog.pg_notify('{channel}', l.lock_id) END IS NOT NULL){three}false{end}`

// sqlFormer is the generation of the holder that did not release the lock, in a statement that has granted
// it: the statement's snapshot still shows the row as it was. If the statement waited for the row, others may
// have had the lock since, see [afterCrash].
const sqlFormer = `{six}(SELECT s.generation FROM {table} AS s WHERE s.lock_id {=} l.lock_id AND s.owner IS NOT NULL){three}NULL::bigint{end}`

// sqlPrimary begins a statement that reads and by which something is decided. It changes nothing,
// and takes neither a row lock nor a transaction id. But a pooler sends an UPDATE to the primary,
// and a standby, which may lag, refuses it.
const sqlPrimary = `
WITH primary_only AS (
    UPDATE {table} SET expires_at = expires_at WHERE false
)`
