-- +goose Up
-- +goose StatementBegin
-- Functions for locks from any language, on the table of 0001_lock_statuses.sql. Go programs need none
-- of them. docs/sql.md says how to use them.
--
-- Each name and operator has its schema, so that no schema of the search_path can put others in its
-- place. release_lock notifies on a channel whose name is a hash of the table's: for another name don't
-- edit this file, but copy what MigrateDB makes for it (\sf in psql shows it).

CREATE OR REPLACE FUNCTION "pglocker"."acquire_lock"(lock_id pg_catalog.text, ttl interval, owner pg_catalog.text, OUT acquired boolean, OUT token bigint, OUT expires_at TIMESTAMP WITH TIME ZONE, OUT holder pg_catalog.text, OUT remaining interval)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path TO pg_catalog, pg_temp
SET enable_seqscan TO off
SET jit TO off
AS $pglocker$
-- A function of github.com/ismurov/pglocker, whose MigrateDB replaces it by a newer one.
<<v>>
DECLARE
    id CONSTANT pg_catalog.text COLLATE pg_catalog."default" := lock_id;
    wrong CONSTANT pg_catalog.text := CASE
        WHEN v.id IS NULL OR v.id OPERATOR(pg_catalog.=) '' THEN 'lock_id is empty'
        WHEN pg_catalog.octet_length(v.id) OPERATOR(pg_catalog.>) 1024 THEN 'lock_id has more than 1024 bytes'
        WHEN pg_catalog.starts_with(v.id, 'pglocker:') THEN 'lock_id begins with pglocker:, which is reserved'
        WHEN ttl IS NULL OR ttl OPERATOR(pg_catalog.<) interval '1 millisecond' OR ttl OPERATOR(pg_catalog.>) interval '36500 days'
        THEN 'ttl is not between 1 millisecond and 36500 days'
        WHEN owner IS NULL OR owner OPERATOR(pg_catalog.=) '' THEN 'owner is empty'
        WHEN pg_catalog.octet_length(owner) OPERATOR(pg_catalog.>) 255 THEN 'owner has more than 255 bytes'
    END;
    who CONSTANT pg_catalog.text := owner;
    floor bigint;
    microseconds bigint;
    now TIMESTAMP WITH TIME ZONE;
    locked boolean;
    rounds bigint := 0;
BEGIN
    IF v.wrong IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'pglocker: invalid argument: ' OPERATOR(pg_catalog.||) v.wrong;
    END IF;

    v.microseconds := (extract(epoch FROM ttl) OPERATOR(pg_catalog.*) 1000000)::bigint;

    WHILE v.rounds OPERATOR(pg_catalog.<) 16 LOOP
        v.rounds := v.rounds OPERATOR(pg_catalog.+) 1;

        PERFORM
           FROM "pglocker"."lock_statuses" AS l
          WHERE l.lock_id OPERATOR(pg_catalog.=) v.id
            AND l.expires_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()
            FOR NO KEY UPDATE;
        v.locked := FOUND;

        IF NOT v.locked THEN
            SELECT false, greatest(least(l.expires_at, '9999-12-31 00:00:00+00'::pg_catalog.timestamptz), '0001-01-01 00:00:00+00'::pg_catalog.timestamptz), l.owner
              INTO acquired, expires_at, holder
              FROM "pglocker"."lock_statuses" AS l
             WHERE l.lock_id OPERATOR(pg_catalog.=) v.id;

            IF FOUND THEN
                remaining := expires_at OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp();
                CONTINUE WHEN remaining OPERATOR(pg_catalog.<=) interval '0'; -- it has just become free

                RETURN;
            END IF;
        END IF;

        BEGIN
            v.floor := ((((('x' OPERATOR(pg_catalog.||) pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint) OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog.<<) 40) OPERATOR(pg_catalog.+) 1);
        EXCEPTION WHEN undefined_function OR insufficient_privilege OR object_not_in_prerequisite_state OR feature_not_supported THEN
            v.floor := 0; -- a relative of PostgreSQL that does not tell its timeline
        END;

        PERFORM CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.<>) ALL (ARRAY['on', 'remote_apply'])
            THEN pg_catalog.set_config('synchronous_commit', 'on', true) END;
        v.now := pg_catalog.clock_timestamp();

        IF v.locked THEN
            UPDATE "pglocker"."lock_statuses" AS l
               SET generation = greatest(l.generation OPERATOR(pg_catalog.+) 1, v.floor),
                   expires_at = v.now OPERATOR(pg_catalog.+) (v.microseconds OPERATOR(pg_catalog.*) interval '1 microsecond'),
                   owner = v.who OPERATOR(pg_catalog.||) '#sql.' OPERATOR(pg_catalog.||) (greatest(l.generation OPERATOR(pg_catalog.+) 1, v.floor))::pg_catalog.text,
                   acquired_at = v.now
             WHERE l.lock_id OPERATOR(pg_catalog.=) v.id
            RETURNING true, l.generation, greatest(least(l.expires_at, '9999-12-31 00:00:00+00'::pg_catalog.timestamptz), '0001-01-01 00:00:00+00'::pg_catalog.timestamptz), l.owner
              INTO acquired, token, expires_at, holder;
        ELSE -- another may create it first, and then nothing is inserted
            INSERT INTO "pglocker"."lock_statuses" AS l (lock_id, generation, expires_at, owner, acquired_at)
            SELECT v.id, n.generation, v.now OPERATOR(pg_catalog.+) (v.microseconds OPERATOR(pg_catalog.*) interval '1 microsecond'), v.who OPERATOR(pg_catalog.||) '#sql.' OPERATOR(pg_catalog.||) n.generation::pg_catalog.text, v.now
              FROM (SELECT greatest(2, v.floor, (SELECT w.generation OPERATOR(pg_catalog.+) 1
                                                   FROM "pglocker"."lock_statuses" AS w
                                                  WHERE w.lock_id OPERATOR(pg_catalog.=) 'pglocker:watermark'
                                                    FOR SHARE)) AS generation) AS n
            ON CONFLICT DO NOTHING
            RETURNING true, l.generation, greatest(least(l.expires_at, '9999-12-31 00:00:00+00'::pg_catalog.timestamptz), '0001-01-01 00:00:00+00'::pg_catalog.timestamptz), l.owner
              INTO acquired, token, expires_at, holder;
        END IF;

        IF FOUND THEN
            remaining := expires_at OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp();

            RETURN;
        END IF;
    END LOOP;

    RAISE EXCEPTION USING ERRCODE = '42501', MESSAGE = 'pglocker: the row of the lock can not be seen or changed',
        HINT = 'A policy of row-level security hides it, a trigger keeps it from being changed, or rows are being deleted.';
END
$pglocker$;

CREATE OR REPLACE FUNCTION "pglocker"."renew_lock"(lock_id pg_catalog.text, token bigint, ttl interval) RETURNS TIMESTAMP WITH TIME ZONE
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path TO pg_catalog, pg_temp
SET enable_seqscan TO off
SET jit TO off
SET lock_timeout TO 500
AS $pglocker$
-- A function of github.com/ismurov/pglocker, whose MigrateDB replaces it by a newer one.
<<v>>
DECLARE
    id CONSTANT pg_catalog.text COLLATE pg_catalog."default" := lock_id;
    wrong CONSTANT pg_catalog.text := CASE
        WHEN v.id IS NULL OR v.id OPERATOR(pg_catalog.=) '' THEN 'lock_id is empty'
        WHEN pg_catalog.octet_length(v.id) OPERATOR(pg_catalog.>) 1024 THEN 'lock_id has more than 1024 bytes'
        WHEN pg_catalog.starts_with(v.id, 'pglocker:') THEN 'lock_id begins with pglocker:, which is reserved'
        WHEN token IS NULL THEN 'token is NULL'
        WHEN ttl IS NULL OR ttl OPERATOR(pg_catalog.<) interval '1 millisecond' OR ttl OPERATOR(pg_catalog.>) interval '36500 days'
        THEN 'ttl is not between 1 millisecond and 36500 days'
    END;
    given CONSTANT bigint := token;
    microseconds bigint;
    now TIMESTAMP WITH TIME ZONE;
    until TIMESTAMP WITH TIME ZONE;
BEGIN
    IF v.wrong IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'pglocker: invalid argument: ' OPERATOR(pg_catalog.||) v.wrong;
    END IF;

    v.microseconds := (extract(epoch FROM ttl) OPERATOR(pg_catalog.*) 1000000)::bigint;

    PERFORM
       FROM "pglocker"."lock_statuses" AS l
      WHERE l.lock_id OPERATOR(pg_catalog.=) v.id
        AND l.generation OPERATOR(pg_catalog.=) v.given
        AND l.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
        FOR NO KEY UPDATE;

    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    v.now := pg_catalog.clock_timestamp();
    PERFORM CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.<>) ALL (ARRAY['on', 'remote_apply'])
            THEN pg_catalog.set_config('synchronous_commit', 'on', true) END;

    UPDATE "pglocker"."lock_statuses" AS l
       SET expires_at = greatest(l.expires_at, v.now OPERATOR(pg_catalog.+) (v.microseconds OPERATOR(pg_catalog.*) interval '1 microsecond'))
     WHERE l.lock_id OPERATOR(pg_catalog.=) v.id
       AND l.expires_at OPERATOR(pg_catalog.>) v.now -- it may have ended in the wait for the row
    RETURNING greatest(least(l.expires_at, '9999-12-31 00:00:00+00'::pg_catalog.timestamptz), '0001-01-01 00:00:00+00'::pg_catalog.timestamptz)
      INTO v.until;

    RETURN v.until;
END
$pglocker$;

CREATE OR REPLACE FUNCTION "pglocker"."release_lock"(lock_id pg_catalog.text, token bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path TO pg_catalog, pg_temp
SET enable_seqscan TO off
SET jit TO off
AS $pglocker$
-- A function of github.com/ismurov/pglocker, whose MigrateDB replaces it by a newer one.
<<v>>
DECLARE
    id CONSTANT pg_catalog.text COLLATE pg_catalog."default" := lock_id;
    wrong CONSTANT pg_catalog.text := CASE
        WHEN v.id IS NULL OR v.id OPERATOR(pg_catalog.=) '' THEN 'lock_id is empty'
        WHEN pg_catalog.octet_length(v.id) OPERATOR(pg_catalog.>) 1024 THEN 'lock_id has more than 1024 bytes'
        WHEN pg_catalog.starts_with(v.id, 'pglocker:') THEN 'lock_id begins with pglocker:, which is reserved'
        WHEN token IS NULL THEN 'token is NULL'
    END;
    given CONSTANT bigint := token;
    floor bigint;
    alone CONSTANT boolean := pg_catalog.txid_current_if_assigned() IS NULL;
    notified boolean;
BEGIN
    IF v.wrong IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'pglocker: invalid argument: ' OPERATOR(pg_catalog.||) v.wrong;
    END IF;

    BEGIN
        v.floor := ((((('x' OPERATOR(pg_catalog.||) pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8))::bit(32)::bigint) OPERATOR(pg_catalog.-) 1) OPERATOR(pg_catalog.<<) 40) OPERATOR(pg_catalog.+) 1);
    EXCEPTION WHEN undefined_function OR insufficient_privilege OR object_not_in_prerequisite_state OR feature_not_supported THEN
        v.floor := 0; -- a relative of PostgreSQL that does not tell its timeline
    END;

    UPDATE "pglocker"."lock_statuses" AS l
       SET generation = greatest(l.generation OPERATOR(pg_catalog.+) 1, v.floor),
           expires_at = pg_catalog.clock_timestamp(),
           owner = NULL,
           acquired_at = NULL
     WHERE l.lock_id OPERATOR(pg_catalog.=) v.id
       AND l.generation OPERATOR(pg_catalog.=) v.given
    RETURNING (CASE WHEN l.contended_until OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp() THEN pg_catalog.pg_notify('pglocker_d3ad8feef067513a', l.lock_id) END IS NOT NULL)
      INTO v.notified;

    IF NOT FOUND THEN
        RETURN false;
    END IF;

    IF v.alone THEN
        PERFORM pg_catalog.set_config('synchronous_commit', 'off', true);
    END IF;

    RETURN true;
END
$pglocker$;

CREATE OR REPLACE FUNCTION "pglocker"."assert_held"(lock_id pg_catalog.text, token bigint) RETURNS pg_catalog.void
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path TO pg_catalog, pg_temp
SET enable_seqscan TO off
SET jit TO off
AS $pglocker$
-- A function of github.com/ismurov/pglocker, whose MigrateDB replaces it by a newer one.
<<v>>
DECLARE
    id CONSTANT pg_catalog.text COLLATE pg_catalog."default" := lock_id;
    wrong CONSTANT pg_catalog.text := CASE
        WHEN v.id IS NULL OR v.id OPERATOR(pg_catalog.=) '' THEN 'lock_id is empty'
        WHEN pg_catalog.octet_length(v.id) OPERATOR(pg_catalog.>) 1024 THEN 'lock_id has more than 1024 bytes'
        WHEN token IS NULL THEN 'token is NULL'
    END;
    given CONSTANT bigint := token;
BEGIN
    IF v.wrong IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = 'pglocker: invalid argument: ' OPERATOR(pg_catalog.||) v.wrong;
    END IF;

    PERFORM
       FROM "pglocker"."lock_statuses" AS l
      WHERE l.lock_id OPERATOR(pg_catalog.=) v.id
        AND l.generation OPERATOR(pg_catalog.=) v.given
        AND l.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
        FOR SHARE;

    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'PL001',
            MESSAGE = pg_catalog.concat('pglocker: lock lost: ', pg_catalog.quote_literal(v.id), ' is not held under the token ', v.given),
            HINT = 'The lease ended, or the lock was released or granted to another. Roll back.';
    END IF;
END
$pglocker$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DROP FUNCTION IF EXISTS "pglocker"."acquire_lock" CASCADE;
DROP FUNCTION IF EXISTS "pglocker"."renew_lock" CASCADE;
DROP FUNCTION IF EXISTS "pglocker"."release_lock" CASCADE;
DROP FUNCTION IF EXISTS "pglocker"."assert_held" CASCADE;
-- +goose StatementEnd
