package store

import "strings"

// What the arguments must be. v.id has the collation that yields to the column's, whatever the caller's
// has.
const (
	sqlCheckID = `
        WHEN v.id IS NULL OR v.id {=} '' THEN 'lock_id is empty'
        WHEN pg_catalog.octet_length(v.id) {>} 1024 THEN 'lock_id has more than 1024 bytes'`
	sqlCheckReserved = `
        WHEN pg_catalog.starts_with(v.id, 'pglocker:') THEN 'lock_id begins with pglocker:, which is reserved'`
	sqlCheckTTL = `
        WHEN ttl IS NULL OR ttl {<} interval '1 millisecond' OR ttl {>} interval '36500 days'
        THEN 'ttl is not between 1 millisecond and 36500 days'`
	sqlCheckOwner = `
        WHEN owner IS NULL OR owner {=} '' THEN 'owner is empty'
        WHEN pg_catalog.octet_length(owner) {>} 255 THEN 'owner has more than 255 bytes'`
	sqlCheckToken = `
        WHEN token IS NULL THEN 'token is NULL'`

	sqlDeclareOwner = `
    who CONSTANT {text} := owner;`
	sqlDeclareToken = `
    given CONSTANT bigint := token;`
	sqlDeclareFloor = `
    floor bigint;`

	// sqlReadFloor goes on without the floor where [hasTimeline] would.
	sqlReadFloor = `BEGIN
        v.floor := {timeline};
    EXCEPTION WHEN undefined_function OR insufficient_privilege OR object_not_in_prerequisite_state OR feature_not_supported THEN
        v.floor := 0; -- a relative of PostgreSQL that does not tell its timeline
    END;`

	// sqlDeclareTTL: a day may have 23 hours, and the caller counts 24. So it is counted in
	// microseconds.
	sqlDeclareTTL = `
    microseconds bigint;
    now TIMESTAMP WITH TIME ZONE;`
	sqlReadTTL = `
    v.microseconds := (extract(epoch FROM ttl) {*} 1000000)::bigint;`
)

// sqlOwnerBySQL names a grant. No Locker makes such a name: it has eight letters and digits after the
// "#". To a Locker all grants of one owner are of one process, "OWNER#sql", see handover.LockerOf.
const sqlOwnerBySQL = `v.who {||} '#sql.' {||} (` + sqlNext + `)::{text}`

// acquireLock: free -> held, or no row -> held. It locks the row if that is free, and waits for it. It
// returns the row as granted, or as it is held by another.
var acquireLock = function{
	name:    "acquire_lock",
	in:      []argument{argID, argTTL, argOwner},
	out:     []argument{{"acquired", typeBoolean}, argToken, {"expires_at", typeTime}, {"holder", typeText}, {"remaining", typeInterval}},
	returns: typeRecord,
	check:   sqlCheckID + sqlCheckReserved + sqlCheckTTL + sqlCheckOwner,
	declare: sqlDeclareOwner + sqlDeclareFloor + sqlDeclareTTL + `
    locked boolean;
    rounds bigint := 0;`,
	body: sqlReadTTL + `

    WHILE v.rounds {<} 16 LOOP
        v.rounds := v.rounds {+} 1;

        PERFORM
           FROM {table} AS l
          WHERE l.lock_id {=} v.id
            AND l.expires_at {<=} {now}
            FOR NO KEY UPDATE;
        v.locked := FOUND;

        IF NOT v.locked THEN
            SELECT false, ` + sqlExpiresAt + `, l.owner
              INTO acquired, expires_at, holder
              FROM {table} AS l
             WHERE l.lock_id {=} v.id;

            IF FOUND THEN
                remaining := expires_at {-} {now};
                CONTINUE WHEN remaining {<=} interval '0'; -- it has just become free

                RETURN;
            END IF;
        END IF;

        ` + indent(4, sqlReadFloor) + `

        PERFORM {durable};
        v.now := {now};

        IF v.locked THEN
            UPDATE {table} AS l
               SET ` + indent(12, sqlGranted) + `
             WHERE l.lock_id {=} v.id
            RETURNING true, l.generation, ` + sqlExpiresAt + `, l.owner
              INTO acquired, token, expires_at, holder;
        ELSE -- another may create it first, and then nothing is inserted
            INSERT INTO {table} AS l (` + sqlHeldColumns + `)
            SELECT v.id, n.generation, v.now {+} (v.microseconds {*} {us}), v.who {||} '#sql.' {||} n.generation::{text}, v.now
              FROM (SELECT greatest(2, v.floor, (SELECT w.generation {+} 1
                                                   FROM {table} AS w
                                                  WHERE w.lock_id {=} 'pglocker:watermark'
                                                    FOR SHARE)) AS generation) AS n
            ON CONFLICT DO NOTHING
            RETURNING true, l.generation, ` + sqlExpiresAt + `, l.owner
              INTO acquired, token, expires_at, holder;
        END IF;

        IF FOUND THEN
            remaining := expires_at {-} {now};

            RETURN;
        END IF;
    END LOOP;

    RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'pglocker: the row of the lock can not be seen or changed',
        HINT = 'A policy of row-level security hides it, a trigger keeps it from being changed, or rows are being deleted.';`,
}

// renewLock: held by a generation -> held for longer. It locks the row, and waits half a second for it:
// the caller's own guarded transaction may have it locked, and end only after this call.
var renewLock = function{
	name:        "renew_lock",
	in:          []argument{argID, argToken, argTTL},
	returns:     typeTime,
	lockTimeout: "500",
	check:       sqlCheckID + sqlCheckReserved + sqlCheckToken + sqlCheckTTL,
	declare: sqlDeclareToken + sqlDeclareTTL + `
    until TIMESTAMP WITH TIME ZONE;`,
	body: sqlReadTTL + `

    PERFORM
       FROM {table} AS l
      WHERE l.lock_id {=} v.id
        AND ` + indent(5, sqlStillHeld) + `
        FOR NO KEY UPDATE;

    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    v.now := {now};
    PERFORM {durable};

    UPDATE {table} AS l
       SET expires_at = greatest(l.expires_at, v.now {+} (v.microseconds {*} {us}))
     WHERE l.lock_id {=} v.id
       AND l.expires_at {>} v.now -- it may have ended in the wait for the row
    RETURNING ` + sqlExpiresAt + `
      INTO v.until;

    RETURN v.until;`,
}

// releaseLock: a generation -> free. It locks the row, and waits for it. Where the caller's transaction
// wrote something before, its commit stays as durable as it was.
var releaseLock = function{
	name:    "release_lock",
	in:      []argument{argID, argToken},
	returns: typeBoolean,
	check:   sqlCheckID + sqlCheckReserved + sqlCheckToken,
	declare: sqlDeclareToken + sqlDeclareFloor + `
    alone CONSTANT boolean := pg_catalog.txid_current_if_assigned() IS NULL;
    notified boolean;`,
	body: `
    ` + sqlReadFloor + `

    UPDATE {table} AS l
       SET ` + indent(4, sqlFreed) + `
     WHERE l.lock_id {=} v.id
       AND ` + sqlOfGeneration + `
    RETURNING {notify}
      INTO v.notified;

    IF NOT FOUND THEN
        RETURN false;
    END IF;

    IF v.alone THEN
        PERFORM {lazy};
    END IF;

    RETURN true;`,
}

// assertHeld is [sqlGuard].
var assertHeld = function{
	name:    "assert_held",
	in:      []argument{argID, argToken},
	returns: typeVoid,
	check:   sqlCheckID + sqlCheckToken,
	declare: sqlDeclareToken,
	body: `
    PERFORM
       FROM {table} AS l
      WHERE l.lock_id {=} v.id
        AND ` + indent(5, sqlStillHeld) + `
        FOR SHARE;

    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PL001',
            MESSAGE = pg_catalog.concat('pglocker: lock lost: ', pg_catalog.quote_literal(v.id), ' is not held under the token ', v.given),
            HINT = 'The lease ended, or the lock was released or granted to another. Roll back.';
    END IF;`,
}

// indent moves the lines of a text after the first to the right.
func indent(by int, text string) string {
	return strings.ReplaceAll(text, "\n", "\n"+strings.Repeat(" ", by))
}
