// Package audit is the true history of a lock table. A trigger writes down each change of a row, in
// the transaction that makes it. So the audit has what was committed, and lacks what was rolled
// back or lost in a crash. The row's lock puts the changes of one lock in their order.
//
// The audit takes nothing from what is tested. It changes no row and awaits no commit. An attempt
// that changes nothing doesn't reach it.
package audit

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// SQL makes the audit of the table with the default names. A connection's name tells which client
// made a change. A waiter's mark is no transition. No client needs a right to the audit.
var SQL = ServerSQL(`pg_catalog.current_setting('application_name')`) + TriggersSQL

// ServerSQL makes what the triggers write to. client is the expression that tells which client made a change.
func ServerSQL(client string) string {
	return `
CREATE SCHEMA audit;

CREATE TABLE audit.transitions (
    seq bigserial PRIMARY KEY,
    lock_id text NOT NULL,
    old_generation bigint, old_expires timestamptz, old_owner text, old_acquired timestamptz,
    new_generation bigint, new_expires timestamptz, new_owner text, new_acquired timestamptz,
    began timestamptz NOT NULL,
    at timestamptz NOT NULL,
    xid bigint NOT NULL,
    app text NOT NULL,
    real_from float8, real_to float8
);

CREATE FUNCTION audit.real_time() RETURNS float8 LANGUAGE sql STABLE AS 'SELECT NULL::pg_catalog.float8';

CREATE FUNCTION audit.record() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
DECLARE
    real_from pg_catalog.float8 := audit.real_time();
    at pg_catalog.timestamptz := pg_catalog.clock_timestamp();
BEGIN
    INSERT INTO audit.transitions (lock_id, old_generation, old_expires, old_owner, old_acquired,
                                   new_generation, new_expires, new_owner, new_acquired, began, at, xid, app,
                                   real_from, real_to)
    VALUES (coalesce(NEW.lock_id, OLD.lock_id), OLD.generation, OLD.expires_at, OLD.owner, OLD.acquired_at,
            NEW.generation, NEW.expires_at, NEW.owner, NEW.acquired_at,
            pg_catalog.statement_timestamp(), at, pg_catalog.txid_current(),
            ` + client + `, real_from, audit.real_time());
    RETURN NULL;
END $$;
`
}

// TriggersSQL makes the triggers.
const TriggersSQL = `
CREATE TRIGGER audit_made AFTER INSERT OR DELETE ON pglocker.lock_statuses
   FOR EACH ROW EXECUTE FUNCTION audit.record();

CREATE TRIGGER audit_changed AFTER UPDATE ON pglocker.lock_statuses
   FOR EACH ROW WHEN ((OLD.generation, OLD.expires_at, OLD.owner, OLD.acquired_at)
                      IS DISTINCT FROM (NEW.generation, NEW.expires_at, NEW.owner, NEW.acquired_at))
   EXECUTE FUNCTION audit.record();
`

// uptimeStep is how exactly the machine tells for how long it is up.
const uptimeStep = 10 * time.Millisecond

// RealTimeSQL has the audit write down also when a change was made by a clock that isn't set: by how long the
// machine is up. The library that sets a server's clock leaves that alone.
const RealTimeSQL = `
CREATE OR REPLACE FUNCTION audit.real_time() RETURNS float8 LANGUAGE sql VOLATILE AS
    $$SELECT pg_catalog.split_part(pg_catalog.pg_read_file('/proc/uptime', 0, 100), ' ', 1)::pg_catalog.float8$$;
`

// Version is a row of the lock table. Times are microseconds since 1970. The zero
// Version is no row; generations of rows are positive.
type Version struct {
	Generation int64
	Expires    int64
	// Owner and Acquired are "" and 0 where they are NULL.
	Owner    string
	Acquired int64
}

// Transition is one change of one lock.
type Transition struct {
	Seq      int64
	Lock     string
	Old, New Version
	// Began and At are the database's clock: Began when the statement had arrived, before the
	// change was decided; At after the decision, before the commit.
	Began, At int64
	// From and To are moments of [history.Now] between which At was read, 0 if the audit has none.
	From, To int64
	// XID is the transaction's, the same for all that one statement changes.
	XID int64
	// App is the client that made it.
	App string
}

// Renews reports whether only the end of the lease moved.
func (t *Transition) Renews() bool {
	return t.Old.Generation == t.New.Generation
}

// Grants reports whether the transition granted the lock.
func (t *Transition) Grants() bool {
	return t.New.Owner != "" && !t.Renews()
}

func (t *Transition) String() string {
	return fmt.Sprintf("#%d %s by %s, %d to %d: %+v -> %+v", t.Seq, t.Lock, t.App, t.Began, t.At, t.Old, t.New)
}

const microseconds = `coalesce((extract(epoch FROM %s) * 1000000)::bigint, 0)`

// Load reads the audit, but for the watermark of pruned rows, which is no lock.
func Load(ctx context.Context, db *sql.DB) ([]*Transition, error) {
	booted := -history.UptimeOffset()
	moment := func(uptime float64) int64 { return booted + int64(uptime*float64(time.Second)) }

	us := func(column string) string { return fmt.Sprintf(microseconds, column) }

	rows, err := db.QueryContext(ctx, `
		SELECT seq, lock_id,
		       coalesce(old_generation, 0), `+us("old_expires")+`, coalesce(old_owner, ''), `+us("old_acquired")+`,
		       coalesce(new_generation, 0), `+us("new_expires")+`, coalesce(new_owner, ''), `+us("new_acquired")+`,
		       `+us("began")+`, `+us("at")+`, xid, app, real_from, real_to
		  FROM audit.transitions
		 WHERE lock_id <> 'pglocker:watermark'
		 ORDER BY seq`)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	defer rows.Close()

	var all []*Transition

	for rows.Next() {
		t := &Transition{}

		var from, to *float64

		err := rows.Scan(&t.Seq, &t.Lock,
			&t.Old.Generation, &t.Old.Expires, &t.Old.Owner, &t.Old.Acquired,
			&t.New.Generation, &t.New.Expires, &t.New.Owner, &t.New.Acquired, &t.Began, &t.At, &t.XID, &t.App, &from, &to)
		if err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}

		if from != nil && to != nil {
			t.From, t.To = moment(*from), moment(*to)+int64(uptimeStep)
		}

		all = append(all, t)
	}

	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}

	return all, nil
}
