package store

// RefreshMark ends the owner of a request that refreshes a lock. By it the history tells a refresh
// from a hand-over, which is a release and a grant.
const RefreshMark = "+"

// ForcedSetting is a setting of the transaction that makes its release a forced one. Its value is
// the reason, and must not be "".
const ForcedSetting = "pglocker.forced"

// bodySix is the function for a table of six columns. moment is the clock by which the statement
// decided: the grant's own, or else when the lock became free. at is the same or later, and follows
// on that of the event before, since the row is locked.
const bodySix = `
DECLARE
    at     CONSTANT pg_catalog.timestamptz := {now};
    moment CONSTANT pg_catalog.timestamptz := coalesce(NEW.acquired_at, least(NEW.expires_at, at));
    lapsed CONSTANT pg_catalog.bool := OLD.acquired_at IS NOT NULL AND OLD.expires_at {<=} moment;
    reason pg_catalog.text;
BEGIN
    IF lapsed THEN
        INSERT INTO {history} (at, lock_id, kind, token, previous_token, owner, expires_at)
        VALUES (OLD.expires_at, OLD.lock_id, 'expired', OLD.generation, OLD.generation, OLD.owner, OLD.expires_at);
    END IF;

    IF NEW.lock_id IS NULL THEN
        INSERT INTO {history} (at, lock_id, kind, token, previous_token, owner, expires_at)
        VALUES (at, OLD.lock_id, 'deleted', OLD.generation, OLD.generation, OLD.owner, OLD.expires_at);

    ELSIF NEW.acquired_at IS NULL THEN
        reason := pg_catalog.current_setting('{setting}', true);

        INSERT INTO {history} (at, lock_id, kind, token, previous_token, owner, expires_at, reason)
        VALUES (at, OLD.lock_id, CASE WHEN reason {<>} '' THEN 'forced' ELSE 'released' END,
                OLD.generation, OLD.generation, OLD.owner, NEW.expires_at, CASE WHEN reason {<>} '' THEN reason END);

    ELSIF OLD.acquired_at IS NOT NULL AND NOT lapsed
          AND (NEW.owner {=} OLD.owner OR NEW.owner {~} '[{mark}](-[0-9]+)?$') THEN
        INSERT INTO {history} (at, lock_id, kind, token, previous_token, owner, expires_at)
        VALUES (at, NEW.lock_id, 'refreshed', NEW.generation, OLD.generation, NEW.owner, NEW.expires_at);

    ELSE
        IF NOT lapsed AND OLD.acquired_at IS NOT NULL THEN
            INSERT INTO {history} (at, lock_id, kind, token, previous_token, owner, expires_at)
            VALUES (at, OLD.lock_id, 'released', OLD.generation, OLD.generation, OLD.owner, at);
        END IF;

        INSERT INTO {history} (at, lock_id, kind, token, previous_token, owner, expires_at)
        VALUES (at, NEW.lock_id, 'granted', NEW.generation, OLD.generation, NEW.owner, NEW.expires_at);
    END IF;

    RETURN NULL;
END`

// bodyThree is the function for a table of three columns. Whether a lock was held when its lease
// ended, or had been released, only the event before tells. What was written last is looked up by
// the primary key.
const bodyThree = `
DECLARE
    at     CONSTANT pg_catalog.timestamptz := {now};
    held   pg_catalog.bool;
    lapsed pg_catalog.bool;
    last   pg_catalog.text;
    reason pg_catalog.text;
BEGIN
    IF OLD.lock_id IS NOT NULL THEN
        SELECT h.kind INTO last FROM {history} AS h WHERE h.lock_id {=} OLD.lock_id ORDER BY h.id DESC LIMIT 1;

        held := coalesce(last {=} ANY (ARRAY['granted', 'refreshed']), OLD.expires_at {>} at);
    END IF;

    lapsed := held AND OLD.expires_at {<=} at;

    IF lapsed THEN
        INSERT INTO {history} (at, lock_id, kind, token, previous_token, expires_at)
        VALUES (OLD.expires_at, OLD.lock_id, 'expired', OLD.generation, OLD.generation, OLD.expires_at);
    END IF;

    IF NEW.lock_id IS NULL THEN
        INSERT INTO {history} (at, lock_id, kind, token, previous_token, expires_at)
        VALUES (at, OLD.lock_id, 'deleted', OLD.generation, OLD.generation, OLD.expires_at);

    ELSIF NEW.expires_at {>} at THEN
        INSERT INTO {history} (at, lock_id, kind, token, previous_token, expires_at)
        VALUES (at, NEW.lock_id, CASE WHEN held AND NOT lapsed THEN 'refreshed' ELSE 'granted' END,
                NEW.generation, OLD.generation, NEW.expires_at);

    ELSIF held THEN
        reason := pg_catalog.current_setting('{setting}', true);

        INSERT INTO {history} (at, lock_id, kind, token, previous_token, expires_at, reason)
        VALUES (at, OLD.lock_id, CASE WHEN reason {<>} '' THEN 'forced' ELSE 'released' END,
                OLD.generation, OLD.generation, NEW.expires_at, CASE WHEN reason {<>} '' THEN reason END);
    END IF;

    RETURN NULL;
END`

// historyBody is the text of the function.
func (s *Store) historyBody(full bool) string {
	body := bodyThree
	if full {
		body = bodySix
	}

	body = with(body, "{setting}", ForcedSetting, "{mark}", RefreshMark)

	return with(qualified(body), "{history}", s.table.history())
}
