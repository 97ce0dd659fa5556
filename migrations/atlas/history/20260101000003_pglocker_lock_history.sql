-- The history of locks, as pglocker.MigrateHistory makes it for a table of six columns.
-- MigrateDB doesn't need it. docs/history.md says what is in it and what it costs.
--
-- Run it in one transaction, after 0001_lock_statuses.sql. It can be run again.

CREATE TABLE IF NOT EXISTS pglocker.lock_history (
    id             BIGINT GENERATED ALWAYS AS IDENTITY, -- of one lock, in the order of events
    at             TIMESTAMP WITH TIME ZONE NOT NULL,   -- when it happened
    lock_id        pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    kind           pg_catalog.text NOT NULL,            -- granted, refreshed, released, expired, forced, deleted
    token          BIGINT NOT NULL,                     -- of the tenure that begins or ends
    previous_token BIGINT,                              -- the row's generation before
    owner          pg_catalog.text,                     -- who was granted the lock, or held it
    expires_at     TIMESTAMP WITH TIME ZONE NOT NULL,   -- the end of the lease as granted; of a release, when the lock is free
    reason         pg_catalog.text,                     -- of a forced release
    PRIMARY KEY (lock_id, id)
) USING heap;

-- It runs with the rights of its owner. Roles that use locks need none on the history. Nobody else
-- may put it on a table of their own, and so write what didn't happen.
CREATE OR REPLACE FUNCTION pglocker.lock_history() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS $$
DECLARE
    at     CONSTANT pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    moment CONSTANT pg_catalog.timestamptz := coalesce(NEW.acquired_at, least(NEW.expires_at, at));
    lapsed CONSTANT pg_catalog.bool := OLD.acquired_at IS NOT NULL AND OLD.expires_at OPERATOR(pg_catalog.<=) moment;
    reason pg_catalog.text;
BEGIN
    IF lapsed THEN
        INSERT INTO "pglocker"."lock_history" (at, lock_id, kind, token, previous_token, owner, expires_at)
        VALUES (OLD.expires_at, OLD.lock_id, 'expired', OLD.generation, OLD.generation, OLD.owner, OLD.expires_at);
    END IF;

    IF NEW.lock_id IS NULL THEN
        INSERT INTO "pglocker"."lock_history" (at, lock_id, kind, token, previous_token, owner, expires_at)
        VALUES (at, OLD.lock_id, 'deleted', OLD.generation, OLD.generation, OLD.owner, OLD.expires_at);

    ELSIF NEW.acquired_at IS NULL THEN
        reason := pg_catalog.current_setting('pglocker.forced', true);

        INSERT INTO "pglocker"."lock_history" (at, lock_id, kind, token, previous_token, owner, expires_at, reason)
        VALUES (at, OLD.lock_id, CASE WHEN reason OPERATOR(pg_catalog.<>) '' THEN 'forced' ELSE 'released' END,
                OLD.generation, OLD.generation, OLD.owner, NEW.expires_at, CASE WHEN reason OPERATOR(pg_catalog.<>) '' THEN reason END);

    ELSIF OLD.acquired_at IS NOT NULL AND NOT lapsed
          AND (NEW.owner OPERATOR(pg_catalog.=) OLD.owner OR NEW.owner OPERATOR(pg_catalog.~) '[+](-[0-9]+)?$') THEN
        INSERT INTO "pglocker"."lock_history" (at, lock_id, kind, token, previous_token, owner, expires_at)
        VALUES (at, NEW.lock_id, 'refreshed', NEW.generation, OLD.generation, NEW.owner, NEW.expires_at);

    ELSE
        IF NOT lapsed AND OLD.acquired_at IS NOT NULL THEN
            INSERT INTO "pglocker"."lock_history" (at, lock_id, kind, token, previous_token, owner, expires_at)
            VALUES (at, OLD.lock_id, 'released', OLD.generation, OLD.generation, OLD.owner, at);
        END IF;

        INSERT INTO "pglocker"."lock_history" (at, lock_id, kind, token, previous_token, owner, expires_at)
        VALUES (at, NEW.lock_id, 'granted', NEW.generation, OLD.generation, NEW.owner, NEW.expires_at);
    END IF;

    RETURN NULL;
END$$;

REVOKE ALL ON FUNCTION pglocker.lock_history() FROM PUBLIC;

-- A renewal sets neither generation nor acquired_at, and calls nothing.
DROP TRIGGER IF EXISTS pglocker_history_insert ON pglocker.lock_statuses;
CREATE TRIGGER pglocker_history_insert AFTER INSERT ON pglocker.lock_statuses
    FOR EACH ROW WHEN (NEW.acquired_at IS NOT NULL) EXECUTE FUNCTION pglocker.lock_history();
DROP TRIGGER IF EXISTS pglocker_history_update ON pglocker.lock_statuses;
CREATE TRIGGER pglocker_history_update AFTER UPDATE OF generation ON pglocker.lock_statuses
    FOR EACH ROW WHEN (OLD.generation OPERATOR(pg_catalog.<>) NEW.generation
        AND (OLD.acquired_at IS NOT NULL OR NEW.acquired_at IS NOT NULL)) EXECUTE FUNCTION pglocker.lock_history();
DROP TRIGGER IF EXISTS pglocker_history_delete ON pglocker.lock_statuses;
CREATE TRIGGER pglocker_history_delete AFTER DELETE ON pglocker.lock_statuses
    FOR EACH ROW EXECUTE FUNCTION pglocker.lock_history();
