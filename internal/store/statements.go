package store

// The texts of all statements. Braces mark what [render] fills in: {table} is
// the quoted table, {next} the generation after a grant or a release, {first}
// that of a lock granted as it is created, {durable} is sqlDurable, {optional}
// whatever touches the columns that a three-column table lacks, {lock} the row lock of a
// batch, and {lock_expiry} of one that changes expires_at alone.
//
// No text leaves it to the search_path which function, operator or type is meant: see
// [qualified] for {=}, {+}, {now} and the like. Operators written so all bind alike, from the
// left: hence the parentheses. {is} compares a lock_id, see [identity]. For IN, BETWEEN,
// LIKE, CASE x WHEN and IS DISTINCT FROM there is no such spelling, so no text has them.
//
// Every grant and renewal returns clock_timestamp() beside the expiry: how much
// of a lease is left is told by the database's clock alone. {row} are the columns
// of a [Row], that clock among them.

// sqlFloor keeps generations unique across failovers: the server's timeline,
// which every promotion increases, in the bits above 40. A standby promoted
// without the last commits so starts above every token the old primary could
// have issued. pg_control_checkpoint() would still show the old timeline right
// after a promotion; the name of the WAL file being written does not.
var sqlFloor = qualified(`((((('x' {||} pg_catalog.substr({walfile}, 1, 8))::bit(32)::bigint) {-} 1) {<<} 40) {+} 1)`)

// sqlExpiresAt is the end of the lease as drivers can read it. None of them puts
// 'infinity' into a time.Time, which a row may show if it wasn't written here: it is the
// end of the last year that has four digits, and '-infinity' is Go's zero time.
const sqlExpiresAt = `greatest(least(l.expires_at, '9999-12-31 00:00:00+00'::{timestamptz}), '0001-01-01 00:00:00+00'::{timestamptz})`

// sqlBegan is when the server received the statement. A holder counts its term from before
// it was sent, and so may count what the row shows from then: unlike the clock as it is in
// the end it leaves out no time in which the statement waited for the row.
const sqlBegan = `pg_catalog.statement_timestamp()`

// sqlDurable makes the commit of its own statement a synchronous one where the
// role's or the database's default is weaker; remote_apply is stronger and
// stays.
const sqlDurable = `CASE WHEN pg_catalog.current_setting('synchronous_commit') {<>} ALL (ARRAY['on', 'remote_apply'])
            THEN pg_catalog.set_config('synchronous_commit', 'on', true) END`

// sqlLazy is the opposite: the commit is not waited for. It is for releases that are
// to be at once, and for marks, alone. WAL is ordered, so that a later grant, which
// is flushed, brings the release with it; a crash that loses a release before that
// revives the lease that it ended, which then runs to its own end. On a table of three
// columns it is {durable}: see sqlSeen.
const sqlLazy = `pg_catalog.set_config('synchronous_commit', 'off', true)`

// sqlAcquire: free or expired -> held by $3 for $2 microseconds. A lock that is
// held matches nothing and costs no write. It locks one row, and waits for it
// only where the row was free in this statement's snapshot: for another grant,
// which then decides, or for a stranger's row lock.
const sqlAcquire = `
UPDATE {table} AS l
   SET generation = {next},
       expires_at = {now} {+} ($2::bigint {*} {us}){optional}
 WHERE l.lock_id {is} $1
   AND l.expires_at {<=} {now}
RETURNING {row}, {durable}`

const sqlAcquireOwner = `,
       owner = $3,
       acquired_at = {now}`

// The statements named Many are those for several locks at once: arrays, one element
// for each request, in the order of the ids. They pass over a row that somebody else
// has locked, so that no request waits for what another one waits for; its own then
// asks alone. A row that was changed between the snapshot and its lock is passed
// over as well: its ctid leads to a version that the snapshot doesn't show. Two
// requests for the same row get it one after the other, and the second finds it
// changed. The column n is the request's number, from 1. A ctid is one of a table: of
// a partition, where the user's table has some.
//
// The rows are looked up one by one, whatever the planner thinks of the table: a
// LATERAL subquery that locks can't be turned into a join. The clock and the floor
// are read once for all.

// sqlAcquireMany is sqlAcquire for the arrays $1 (ids), $2 (microseconds) and, with
// six columns, $3 (owners).
const sqlAcquireMany = `
WITH c AS MATERIALIZED (
    SELECT {now} AS now, {floor} AS floor, {durable} AS durable
), free AS MATERIALIZED (
    SELECT l.part, l.row_version, r.*
      FROM {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version
                      FROM {table} AS l
                     WHERE l.lock_id {is} r.lock_id
                       AND l.expires_at {<=} {now}
                       {lock} SKIP LOCKED) AS l
)
UPDATE {table} AS l
   SET generation = greatest(l.generation {+} 1, c.floor),
       expires_at = c.now {+} (r.ttl {*} {us}){optional}
  FROM free AS r, c
 WHERE l.ctid {=} r.row_version
   AND l.tableoid {=} r.part
RETURNING {row}, r.n`

const sqlAcquireManyOwner = `,
       owner = r.owner,
       acquired_at = c.now`

// sqlInsert: unknown -> held for $2 microseconds. It locks nothing that exists;
// where another session creates the lock at the same moment, it waits for that
// one's end and then does nothing.
const sqlInsert = `
INSERT INTO {table} AS l (lock_id, generation, expires_at)
VALUES ($1, {first}, {now} {+} ($2::bigint {*} {us}))
ON CONFLICT DO NOTHING
RETURNING {row}, {durable}`

// sqlInsertFull is sqlInsert for the six-column table; $3 is the owner.
const sqlInsertFull = `
INSERT INTO {table} AS l (lock_id, generation, expires_at, owner, acquired_at)
VALUES ($1, {first}, {now} {+} ($2::bigint {*} {us}), $3, {now})
ON CONFLICT DO NOTHING
RETURNING {row}, {durable}`

// sqlInsertMany is sqlInsert for the arrays of sqlAcquireMany. What it returns is told
// apart by the id, of which it inserts the first. It can't pass over a lock that a
// transaction creates which has not ended: it waits for that one for a moment, and then
// fails with 55P03.
const sqlInsertMany = `
WITH c AS MATERIALIZED (
    SELECT {now} AS now, {floor} AS floor, {durable} AS durable,
           pg_catalog.set_config('lock_timeout', '20ms', true) AS patience
)
INSERT INTO {table} AS l (lock_id, generation, expires_at)
SELECT r.lock_id, greatest(2, c.floor), c.now {+} (r.ttl {*} {us})
  FROM {requests} AS r ({columns}), c
ON CONFLICT DO NOTHING
RETURNING {row}, l.lock_id`

// sqlInsertManyFull is sqlInsertMany for the six-column table.
const sqlInsertManyFull = `
WITH c AS MATERIALIZED (
    SELECT {now} AS now, {floor} AS floor, {durable} AS durable,
           pg_catalog.set_config('lock_timeout', '20ms', true) AS patience
)
INSERT INTO {table} AS l (lock_id, generation, expires_at, owner, acquired_at)
SELECT r.lock_id, greatest(2, c.floor), c.now {+} (r.ttl {*} {us}), r.owner, c.now
  FROM {requests} AS r ({columns}), c
ON CONFLICT DO NOTHING
RETURNING {row}, l.lock_id`

// sqlRefresh: generation $3, held or not -> held by $4 for $2 microseconds, with
// the next generation. A compare-and-swap, and for another owner a hand-over: a
// release and the grant to the next, in one. It locks one row, and waits for it.
const sqlRefresh = `
UPDATE {table} AS l
   SET generation = {next},
       expires_at = {now} {+} ($2::bigint {*} {us}){optional}
 WHERE l.lock_id {is} $1
   AND l.generation {=} $3::bigint{seen}
RETURNING {row}, {durable}`

const sqlRefreshOwner = `,
       owner = $4,
       acquired_at = {now}`

// sqlSeen, in a refresh or a release, refuses a status from before the present tenure:
// the status shows the lock free since {seen}, in microseconds, and the tenure began
// later. Generations alone don't tell, if the release that the status shows was lost in
// a crash and the next grant got its generation.
const sqlSeen = `
   AND (l.acquired_at IS NULL
        OR (extract(epoch FROM l.acquired_at) {*} 1000000)::bigint {<=} {seen}::bigint)`

// sqlRefreshMany is sqlRefresh for the arrays $1 (ids), $2
// (microseconds), $3 (generations) and, with six columns, $4 (owners).
const sqlRefreshMany = `
WITH c AS MATERIALIZED (
    SELECT {now} AS now, {floor} AS floor, {durable} AS durable
), found AS MATERIALIZED (
    SELECT l.part, l.row_version, r.*
      FROM {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version
                      FROM {table} AS l
                     WHERE l.lock_id {is} r.lock_id
                       AND l.generation {=} r.generation{seen}
                       {lock} SKIP LOCKED) AS l
)
UPDATE {table} AS l
   SET generation = greatest(l.generation {+} 1, c.floor),
       expires_at = c.now {+} (r.ttl {*} {us}){optional}
  FROM found AS r, c
 WHERE l.ctid {=} r.row_version
   AND l.tableoid {=} r.part
RETURNING {row}, r.n`

// sqlSeenMany is sqlSeen in a statement for several; zero is none.
const sqlSeenMany = `
                       AND (r.seen {=} 0
                            OR l.acquired_at IS NULL
                            OR (extract(epoch FROM l.acquired_at) {*} 1000000)::bigint {<=} r.seen)`

// sqlConfirm settles a grant whose reply was lost: it writes the row that the
// grant to $2 left, unchanged, so that its own commit, awaited, covers that of
// the grant. A SELECT could show a grant that is not yet durable. Six columns
// only.
const sqlConfirm = `
UPDATE {table} AS l
   SET expires_at = l.expires_at
 WHERE l.lock_id {is} $1
   AND l.owner {=} $2
   AND l.expires_at {>} {now}
RETURNING {row}, {durable}`

// sqlConfirmMany is sqlConfirm for the arrays $1 (ids) and $2 (owners).
const sqlConfirmMany = `
WITH c AS MATERIALIZED (
    SELECT {durable} AS durable
), found AS MATERIALIZED (
    SELECT l.part, l.row_version, r.n
      FROM {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version
                      FROM {table} AS l
                     WHERE l.lock_id {is} r.lock_id
                       AND l.owner {=} r.owner
                       AND l.expires_at {>} {now}
                       {lock} SKIP LOCKED) AS l
)
UPDATE {table} AS l
   SET expires_at = l.expires_at
  FROM found AS r, c
 WHERE l.ctid {=} r.row_version
   AND l.tableoid {=} r.part
RETURNING {row}, r.n`

// sqlGiveBack: held by one of the grants $2 -> free. Six columns only.
const sqlGiveBack = `
UPDATE {table} AS l
   SET generation = {next},
       expires_at = {now},
       owner = NULL,
       acquired_at = NULL
 WHERE l.lock_id {is} $1
   AND l.owner {=} ANY ($2::{text}[])
RETURNING true, {notify}, {lazy}`

// sqlGiveBackMany is sqlGiveBack for the arrays $1 (ids) and $2, of which each element is
// an array of owners, as text.
const sqlGiveBackMany = `
WITH c AS MATERIALIZED (
    SELECT {now} AS now, {floor} AS floor, {lazy} AS lazy
), held AS MATERIALIZED (
    SELECT l.part, l.row_version, r.n
      FROM {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version
                      FROM {table} AS l
                     WHERE l.lock_id {is} r.lock_id
                       AND l.owner {=} ANY (r.owners::{text}[])
                       {lock} SKIP LOCKED) AS l
)
UPDATE {table} AS l
   SET generation = greatest(l.generation {+} 1, c.floor),
       expires_at = c.now,
       owner = NULL,
       acquired_at = NULL
  FROM held AS r, c
 WHERE l.ctid {=} r.row_version
   AND l.tableoid {=} r.part
RETURNING {notify}, r.n`

// sqlGiveBackLast is sqlGiveBack that locks the row whoever it shows, and so waits
// behind all who wait for it already; the row that it then finds decides. The
// clock is read again after the wait, since what is computed from the row is.
const sqlGiveBackLast = `
UPDATE {table} AS l
   SET generation = CASE WHEN l.owner {=} ANY ($2::{text}[]) THEN {next} ELSE l.generation END,
       expires_at = CASE WHEN l.owner {=} ANY ($2::{text}[]) THEN {now} ELSE l.expires_at END,
       acquired_at = CASE WHEN l.owner {=} ANY ($2::{text}[]) THEN NULL ELSE l.acquired_at END,
       owner = CASE WHEN l.owner {=} ANY ($2::{text}[]) THEN NULL ELSE l.owner END
 WHERE l.lock_id {is} $1
RETURNING l.owner IS NULL, CASE WHEN l.owner IS NULL THEN {notify} END, {lazy}`

// sqlCreate: unknown -> free, generation 1.
const sqlCreate = `
INSERT INTO {table} AS l (lock_id, generation, expires_at)
VALUES ($1, 1, {now})
ON CONFLICT DO NOTHING
RETURNING {row}, {durable}`

// sqlCreateMany is sqlCreate for the array $1. See sqlInsertMany.
const sqlCreateMany = `
WITH c AS MATERIALIZED (
    SELECT {durable} AS durable, pg_catalog.set_config('lock_timeout', '20ms', true) AS patience
)
INSERT INTO {table} AS l (lock_id, generation, expires_at)
SELECT r.lock_id, 1, {now}
  FROM {requests} AS r ({columns}), c
ON CONFLICT DO NOTHING
RETURNING {row}, l.lock_id`

// sqlGet reads one lock and locks nothing.

// sqlPrimary begins a statement that reads and by which something is decided. It changes
// nothing and takes neither a lock on a row nor a transaction id. But a pooler that
// sends reads to standbys sends it to the primary, since an UPDATE is in it, and a
// standby refuses it. A standby may lag: it shows a lock as it was.
const sqlPrimary = `
WITH primary_only AS (
    UPDATE {table} SET expires_at = expires_at WHERE false
)`

// sqlGet reads one lock and locks nothing. It is for information only: see sqlLook.
const sqlGet = `
SELECT {row}, NULL::{text}
  FROM {table} AS l
 WHERE l.lock_id {is} $1`

// sqlLook is sqlGet for whatever the answer decides.
const sqlLook = sqlPrimary + sqlGet

// sqlGetMany is sqlGet for the array $1.
const sqlGetMany = `
SELECT {row}, r.n
  FROM {requests} WITH ORDINALITY AS r ({columns}, n),
       LATERAL (SELECT * FROM {table} AS l WHERE l.lock_id {is} r.lock_id OFFSET 0) AS l`

// sqlLookMany is sqlLook for the array $1.
const sqlLookMany = sqlPrimary + sqlGetMany

// sqlRelease: generation $2 -> free in $3 microseconds, with the next generation.
// Zero is at once; more honours a minimum hold, and is as durable as a grant: the
// lease that a crash would revive may end before it. It locks one row, and waits for
// it. Who waits is notified, and nobody is where nobody does.
const sqlRelease = `
UPDATE {table} AS l
   SET generation = {next},
       expires_at = {now} {+} ($3::bigint {*} {us}){optional}
 WHERE l.lock_id {is} $1
   AND l.generation {=} $2::bigint{seen}
RETURNING {notify}, CASE WHEN $3::bigint {>} 0 THEN {durable} ELSE {lazy} END`

const sqlReleaseOwner = `,
       owner = NULL,
       acquired_at = NULL`

// sqlReleaseMany is sqlRelease, at once, for the arrays $1 (ids) and $2
// (generations).
const sqlReleaseMany = `
WITH c AS MATERIALIZED (
    SELECT {now} AS now, {floor} AS floor, {lazy} AS lazy
), held AS MATERIALIZED (
    SELECT l.part, l.row_version, r.n
      FROM {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version
                      FROM {table} AS l
                     WHERE l.lock_id {is} r.lock_id
                       AND l.generation {=} r.generation
                       {lock} SKIP LOCKED) AS l
)
UPDATE {table} AS l
   SET generation = greatest(l.generation {+} 1, c.floor),
       expires_at = c.now{optional}
  FROM held AS r, c
 WHERE l.ctid {=} r.row_version
   AND l.tableoid {=} r.part
RETURNING {notify}, r.n`

// sqlReleaseManyDated is sqlReleaseMany for requests of which some go by more: $3 is the
// minimum hold (microseconds) and, with six columns, $4 is for sqlSeen (zero: without it).
// One that is to be durable makes all of them so.
const sqlReleaseManyDated = `
WITH c AS MATERIALIZED (
    SELECT {now} AS now, {floor} AS floor,
           CASE WHEN pg_catalog.max(r.hold) {>} 0 THEN {durable} ELSE {lazy} END AS how
      FROM {requests} AS r ({columns})
), held AS MATERIALIZED (
    SELECT l.part, l.row_version, r.*
      FROM {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version
                      FROM {table} AS l
                     WHERE l.lock_id {is} r.lock_id
                       AND l.generation {=} r.generation{seen}
                       {lock} SKIP LOCKED) AS l
)
UPDATE {table} AS l
   SET generation = greatest(l.generation {+} 1, c.floor),
       expires_at = c.now {+} (r.hold {*} {us}){optional}
  FROM held AS r, c
 WHERE l.ctid {=} r.row_version
   AND l.tableoid {=} r.part
RETURNING {notify}, r.n`

// sqlTry is sqlAcquire that tells what stands in the way: it returns one row, the
// granted one, or else the row as this statement's snapshot shows it, or none if
// there is no such lock. A failed attempt costs no write.
const sqlTry = `
WITH got AS (
    UPDATE {table} AS l
       SET generation = {next},
           expires_at = {now} {+} ($2::bigint {*} {us}){optional}
     WHERE l.lock_id {is} $1
       AND l.expires_at {<=} {now}
    RETURNING l.*, {durable} AS pglocker_durable
)
SELECT {row}, l.pglocker_durable, true FROM got AS l
 UNION ALL
SELECT {row}, NULL::{text}, false FROM {table} AS l
 WHERE l.lock_id {is} $1
   AND NOT EXISTS (SELECT FROM got)`

// sqlTryMany is sqlTry for the arrays of sqlAcquireMany. A row that it passed over shows as
// this statement's snapshot has it.
const sqlTryMany = `
WITH c AS MATERIALIZED (
    SELECT {now} AS now, {floor} AS floor, {durable} AS durable
), free AS MATERIALIZED (
    SELECT l.part, l.row_version, r.*
      FROM {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version
                      FROM {table} AS l
                     WHERE l.lock_id {is} r.lock_id
                       AND l.expires_at {<=} {now}
                       {lock} SKIP LOCKED) AS l
), got AS (
    UPDATE {table} AS l
       SET generation = greatest(l.generation {+} 1, c.floor),
           expires_at = c.now {+} (r.ttl {*} {us}){optional}
      FROM free AS r, c
     WHERE l.ctid {=} r.row_version
       AND l.tableoid {=} r.part
    RETURNING l.*, r.n AS pglocker_n
)
SELECT {row}, l.pglocker_n, true FROM got AS l
 UNION ALL
SELECT {row}, r.n, false
  FROM {requests} WITH ORDINALITY AS r ({columns}, n),
       LATERAL (SELECT * FROM {table} AS l WHERE l.lock_id {is} r.lock_id OFFSET 0) AS l
 WHERE NOT EXISTS (SELECT FROM got WHERE got.pglocker_n {=} r.n)`

// sqlClaim is for who waits: free -> held by $3 for $2 microseconds, or else held
// -> held, with the mark that somebody waits for $4 microseconds from now, or up to MarkModulus fewer: the mark
// is signed, see Mark, and doesn't shorten one that stands for longer, see sqlAhead. The
// row's lock makes the choice atomic against a release, which so either comes
// first and leaves the lock free, or sees the mark and notifies. The mark alone
// needs no flush: a crash that loses it costs a poll. It locks one row, and waits
// for it. The clock is read before the wait, and only once (OFFSET 0), so a lock may look
// held that has just become free. If another was granted it meanwhile, after the clock was
// set back, it could look free though it is held: so the clock is read again when
// PostgreSQL checks the row that it finds changed (EvalPlanQual), and if it is behind the
// first reading, nothing is found. A row that was only locked, or whose change was rolled
// back, isn't checked again and needn't be: nobody was granted it. The last column is the
// mark that stood there before. Six columns only.
const sqlClaim = `
UPDATE {table} AS l
   SET generation = CASE WHEN l.expires_at {<=} c.now THEN {next} ELSE l.generation END,
       expires_at = CASE WHEN l.expires_at {<=} c.now
                         THEN c.now {+} ($2::bigint {*} {us}) ELSE l.expires_at END,
       owner = CASE WHEN l.expires_at {<=} c.now THEN $3 ELSE l.owner END,
       acquired_at = CASE WHEN l.expires_at {<=} c.now THEN c.now ELSE l.acquired_at END,
       contended_until = CASE WHEN l.expires_at {<=} c.now THEN l.contended_until
                              ELSE c.now {+} (({ahead} {-} pg_catalog.mod(c.us {+} {ahead} {-} $5::bigint, {modulus}))
                                              {*} {us}) END
  FROM (SELECT n.now, (extract(epoch FROM n.now) {*} 1000000)::bigint AS us,
               (SELECT s.contended_until FROM {table} AS s WHERE s.lock_id {is} $1) AS mark
          FROM (SELECT {now} AS now OFFSET 0) AS n
        OFFSET 0) AS c
 WHERE l.lock_id {is} $1
   AND c.now {<=} {now}
RETURNING {row},
          CASE WHEN l.owner {=} $3 THEN {durable}
               ELSE {lazy} END,
          (l.owner {=} $3) IS TRUE,
          c.mark`

// sqlClaimMany is sqlClaim for the arrays $1 (ids), $2 (microseconds), $3 (for how long the
// mark stands), $4 (signatures) and $5 (owners). The clock is read once for all: no row that
// it decides about was changed since the snapshot, so none was granted to another
// meanwhile. One grant among them makes the commit a synchronous one.
const sqlClaimMany = `
WITH c AS MATERIALIZED (
    SELECT n.now, (extract(epoch FROM n.now) {*} 1000000)::bigint AS us, {floor} AS floor
      FROM (SELECT {now} AS now OFFSET 0) AS n
), found AS MATERIALIZED (
    SELECT l.part, l.row_version, l.stood, l.expires_at {<=} c.now AS free, r.*
      FROM c, {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version, l.contended_until AS stood, l.expires_at
                      FROM {table} AS l
                     WHERE l.lock_id {is} r.lock_id
                       {lock} SKIP LOCKED) AS l
), flush AS MATERIALIZED (
    SELECT CASE WHEN pg_catalog.bool_or(found.free) THEN {durable}
                ELSE {lazy} END AS how
      FROM found
)
UPDATE {table} AS l
   SET generation = CASE WHEN r.free THEN greatest(l.generation {+} 1, c.floor) ELSE l.generation END,
       expires_at = CASE WHEN r.free
                         THEN c.now {+} (r.ttl {*} {us}) ELSE l.expires_at END,
       owner = CASE WHEN r.free THEN r.owner ELSE l.owner END,
       acquired_at = CASE WHEN r.free THEN c.now ELSE l.acquired_at END,
       contended_until = CASE WHEN r.free THEN l.contended_until
                              ELSE c.now {+} (({aheads} {-} pg_catalog.mod(c.us {+} {aheads} {-} r.signature, {modulus}))
                                            {*} {us}) END
  FROM found AS r, c, flush
 WHERE l.ctid {=} r.row_version
   AND l.tableoid {=} r.part
RETURNING {row}, r.n, r.free, r.stood`

// sqlAhead is how many microseconds from now a claim's mark stands, before it is signed. Who
// polls marks no time in which a release would notify. It must not end the mark of somebody who
// listens: then it takes its end, or up to a {modulus} later, for the signature. (Where many
// poll, such a mark may stand after the one who listened has left: that costs notifications.)
const sqlAhead = `(CASE WHEN l.contended_until {>} (c.now {+} ($4::bigint {*} {us}))
                                                   THEN least((extract(epoch FROM l.contended_until {-} c.now) {*} 1000000)::bigint, {longest}) {+} {modulus} {-} 1
                                                   ELSE $4::bigint END)`

// sqlRenew: held by generation -> held for longer, for all of the arrays $1 (ids), $2
// (generations) and $3 (microseconds). Only the expiry moves, only to later, and a
// lease that ended is never revived. A row that somebody else has locked is passed
// over: a guard's share lock lasts as long as its transaction.
const sqlRenew = `
WITH c AS MATERIALIZED (
    SELECT {durable} AS durable
), due AS MATERIALIZED (
    SELECT l.part, l.row_version, r.*
      FROM {requests} WITH ORDINALITY AS r ({columns}, n),
           LATERAL (SELECT l.tableoid AS part, l.ctid AS row_version
                      FROM {table} AS l
                     WHERE l.lock_id {is} r.lock_id
                       AND l.generation {=} r.generation
                       AND l.expires_at {>} {now}
                       {lock_expiry} SKIP LOCKED) AS l
)
UPDATE {table} AS l
   SET expires_at = greatest(l.expires_at, {now} {+} (r.ttl {*} {us}))
  FROM due AS r, c
 WHERE l.ctid {=} r.row_version
   AND l.tableoid {=} r.part
RETURNING r.n, {expires_at}, {began}`

// sqlHeld lists those of the arrays $1 (ids) and $2 (generations) that are still
// held by that generation: what sqlRenew passed over and is in this list was
// busy, and what is not in it is gone, for good.
const sqlHeld = sqlPrimary + `
SELECT r.n
  FROM {requests} WITH ORDINALITY AS r ({columns}, n),
       LATERAL (SELECT
                  FROM {table} AS l
                 WHERE l.lock_id {is} r.lock_id
                   AND l.generation {=} r.generation
                   AND l.expires_at {>} {now}
                OFFSET 0) AS l`

// sqlGuard proves, inside its caller's transaction, that generation $2 still
// holds the lock, and keeps it so until that transaction ends: the share lock
// conflicts with every transition. (FOR KEY SHARE would not: transitions leave
// the key alone, so it neither waits for them nor keeps them off, and reads the
// row as it was before one that is under way.)
const sqlGuard = `
SELECT l.generation
  FROM {table} AS l
 WHERE l.lock_id {is} $1
   AND l.generation {=} $2
   AND l.expires_at {>} {now}
   FOR SHARE`
