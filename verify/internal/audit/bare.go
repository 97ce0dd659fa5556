package audit

import "fmt"

// BareSchema and BareTable name a lock table of three columns.
const (
	BareSchema = "pglocker"
	BareTable  = "bare_lock_statuses"
)

// BareSQL makes that table, and its audit. The table doesn't name the holder of a lock: that is the
// client that made the last grant. A change of the generation is a grant if its lease runs, and a
// release if it doesn't. So no release may have a minimum hold, and the clock must not be set. A
// grant whose lease was over when it came looks like a release.
const BareSQL = `
CREATE TABLE ` + BareSchema + `.` + BareTable + ` (
    lock_id text COLLATE "C" PRIMARY KEY,
    generation bigint NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE TABLE audit.holders (lock_id text PRIMARY KEY, owner text, acquired timestamptz);

CREATE FUNCTION audit.record_bare() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog AS $$
DECLARE
    app text := current_setting('application_name');
    lock text := coalesce(NEW.lock_id, OLD.lock_id);
    was record;
    owner text;
    acquired timestamptz;
BEGIN
    SELECT h.owner, h.acquired INTO was FROM audit.holders AS h WHERE h.lock_id = lock;

    IF NEW.generation = OLD.generation THEN
        owner := was.owner;
        acquired := was.acquired;
    ELSIF NEW.expires_at > clock_timestamp() THEN
        owner := format('` + bareOwner + `', app, NEW.generation);
        acquired := clock_timestamp();
    END IF;

    INSERT INTO audit.holders VALUES (lock, owner, acquired)
        ON CONFLICT (lock_id) DO UPDATE SET owner = excluded.owner, acquired = excluded.acquired;

    INSERT INTO audit.transitions (lock_id, old_generation, old_expires, old_owner, old_acquired,
                                   new_generation, new_expires, new_owner, new_acquired, began, at, xid, app)
    VALUES (lock, OLD.generation, OLD.expires_at, was.owner, was.acquired,
            NEW.generation, NEW.expires_at, owner, acquired,
            statement_timestamp(), clock_timestamp(), txid_current(), app);
    RETURN NULL;
END $$;

CREATE TRIGGER audit_made AFTER INSERT OR DELETE ON ` + BareSchema + `.` + BareTable + `
   FOR EACH ROW EXECUTE FUNCTION audit.record_bare();

CREATE TRIGGER audit_changed AFTER UPDATE ON ` + BareSchema + `.` + BareTable + `
   FOR EACH ROW WHEN ((OLD.generation, OLD.expires_at) IS DISTINCT FROM (NEW.generation, NEW.expires_at))
   EXECUTE FUNCTION audit.record_bare();
`

// bareOwner is what the audit calls a grant of that table: the client and the generation. The
// number behind the dot orders the names of other grants; here it says nothing.
const bareOwner = "%s#bare-%s.0"

// BareOwner is what the audit calls a grant of that table.
func BareOwner(client string, token int64) string {
	return fmt.Sprintf(bareOwner, client, fmt.Sprint(token))
}
