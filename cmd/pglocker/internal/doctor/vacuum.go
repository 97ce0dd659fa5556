package doctor

import (
	"context"
	"fmt"
)

// What keeps dead rows from being removed: old snapshots, in this database or of a standby, replication slots and
// prepared transactions. Acquiring then gets slower from day to day.

const keepsRows = "Dead rows of all tables stay until it ends. Each grant and renewal leaves one, so taking a lock gets slower and slower."

// sqlOldTransactions lists sessions that hold dead rows back, the oldest first.
const sqlOldTransactions = `
SELECT a.pid, coalesce(a.usename::text, ''), coalesce(a.application_name, ''), coalesce(a.state, a.backend_type),
       coalesce(extract(epoch FROM clock_timestamp() - a.xact_start), 0)::float8, coalesce(age(a.backend_xmin), age(a.backend_xid), 0)
  FROM pg_stat_activity AS a
 WHERE (a.backend_xmin IS NOT NULL OR a.backend_xid IS NOT NULL)
   AND a.pid <> pg_backend_pid()
   AND (a.datname = current_database() OR a.backend_type = 'walsender')
   AND a.backend_type <> 'autovacuum worker'
   AND (clock_timestamp() - a.xact_start > $1::float8 * interval '1 second'
        OR coalesce(age(a.backend_xmin), age(a.backend_xid)) > $2::bigint)
 ORDER BY 5 DESC, 6 DESC LIMIT 5`

// sqlSlots lists replication slots that hold dead rows back: of standbys that are gone, or far behind.
const sqlSlots = `
SELECT quote_ident(slot_name), quote_literal(slot_name), active, age(xmin) FROM pg_replication_slots
 WHERE xmin IS NOT NULL AND (NOT active OR age(xmin) > $1::bigint) ORDER BY 4 DESC LIMIT 5`

// sqlPrepared lists prepared transactions of this database, and says which have the table or rows of it locked. In
// pg_locks one is known by the lock on its own number.
const sqlPrepared = parts + `
SELECT x.gid, x.owner::text, extract(epoch FROM clock_timestamp() - x.prepared)::float8,
       EXISTS (SELECT FROM pg_locks AS k JOIN pg_locks AS own USING (virtualtransaction)
                WHERE k.pid IS NULL AND k.relation IN (SELECT oid FROM part)
                  AND own.pid IS NULL AND own.locktype = 'transactionid' AND own.transactionid = x.transaction)
  FROM pg_prepared_xacts AS x
 WHERE x.database = current_database()
 ORDER BY 4 DESC, 3 DESC LIMIT 20`

func checkVacuum(ctx context.Context, p *patient, result *Check) error {
	found, err := readList(ctx, p, "SELECT current_setting('autovacuum') || ' ' || current_setting('track_counts')")
	if err != nil {
		return err
	}

	if found[0] != "on on" {
		result.find(Warning, "autovacuum-off-server", "autovacuum, or track_counts, is off for the whole server.",
			"Nothing removes dead rows. Taking a lock gets slower and slower.",
			"ALTER SYSTEM SET autovacuum = on;\nALTER SYSTEM SET track_counts = on;\nSELECT pg_reload_conf();")
	}

	if err := findOldTransactions(ctx, p, result); err != nil {
		return err
	}

	if err := findSlots(ctx, p, result); err != nil {
		return err
	}

	if err := findPrepared(ctx, p, result); err != nil {
		return err
	}

	result.seen("nothing holds dead rows back")

	if len(result.findings) > 0 {
		result.seen("%s", many(int64(len(result.findings)), "obstacle"))
	}

	if !p.seesAll {
		result.note("The role doesn't see how old other roles' transactions are: GRANT pg_read_all_stats TO %s;", p.forRole)
	}

	return nil
}

func findOldTransactions(ctx context.Context, p *patient, result *Check) error {
	type transaction struct {
		PID                      int64
		Role, Application, State string
		Seconds                  float64
		Age                      int64
	}

	found, err := readRows[transaction](ctx, p, sqlOldTransactions, p.limits.OldTransaction.Seconds(), p.limits.OldXmin)

	for _, t := range found {
		result.find(Warning, "old-transaction", fmt.Sprintf("Process %d (role %s, %s, %s) has had a transaction open for %s, %d transactions ago.",
			t.PID, t.Role, named(t.Application), t.State, seconds(t.Seconds), t.Age),
			keepsRows, fmt.Sprintf("SELECT pg_terminate_backend(%d);  -- it rolls back", t.PID))
	}

	return err
}

func findSlots(ctx context.Context, p *patient, result *Check) error {
	type slot struct {
		Name, Literal string
		Active        bool
		Age           int64
	}

	found, err := readRows[slot](ctx, p, sqlSlots, p.limits.OldXmin)

	for _, s := range found {
		state := "which nobody reads"
		if s.Active {
			state = "which is in use"
		}

		result.find(Warning, "replication-slot", fmt.Sprintf("The replication slot %s, %s, holds back %d transactions.", s.Name, state, s.Age),
			keepsRows+" The slot of a standby that is gone also keeps WAL, until the disk is full.",
			fmt.Sprintf("SELECT pg_drop_replication_slot(%s);  -- if the standby won't come back", s.Literal))
	}

	return err
}

func findPrepared(ctx context.Context, p *patient, result *Check) error {
	type prepared struct {
		GID, Owner string
		Seconds    float64
		OnTable    bool
	}

	found, err := readRows[prepared](ctx, p, sqlPrepared, p.oid)

	for _, x := range found {
		seen := fmt.Sprintf("The prepared transaction %q of role %s is %s old", x.GID, x.Owner, seconds(x.Seconds))
		mend := fmt.Sprintf("ROLLBACK PREPARED %s;  -- or COMMIT PREPARED, if its coordinator says so", quoteText(x.GID))

		switch {
		case x.OnTable && x.Seconds > p.limits.Blocker.Seconds():
			result.find(Error, "prepared-transaction", seen+", and has rows of "+p.table+" locked.",
				"Holders of these locks lose them, and calls for them hang, even after a restart of the server.", mend)
		case x.Seconds > p.limits.OldTransaction.Seconds():
			result.find(Warning, "prepared-transaction", seen+".", keepsRows, mend)
		}
	}

	return err
}

// sqlBlockers lists the sessions that have the table or rows of it locked, the oldest first. No privilege is
// needed for pg_locks; without one, the age isn't known.
const sqlBlockers = parts + `
SELECT k.pid, coalesce(quote_ident(a.usename), ''), coalesce(a.application_name, ''), coalesce(a.state, ''), min(k.mode),
       bool_or(k.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')),
       extract(epoch FROM clock_timestamp() - min(a.xact_start))::float8
  FROM pg_locks AS k LEFT JOIN pg_stat_activity AS a ON a.pid = k.pid
 WHERE k.relation IN (SELECT oid FROM part)
   AND k.database = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND k.granted AND k.pid <> pg_backend_pid()
   AND k.mode NOT IN ('AccessShareLock', 'ShareUpdateExclusiveLock')
 GROUP BY 1, 2, 3, 4
 ORDER BY 7 DESC NULLS FIRST LIMIT 20`

func checkBlockers(ctx context.Context, p *patient, result *Check) error {
	type blocker struct {
		PID                            int64
		Role, Application, State, Mode string
		Whole                          bool
		Seconds                        *float64
	}

	found, err := readRows[blocker](ctx, p, sqlBlockers, p.oid)
	if err != nil {
		return err
	}

	for _, b := range found {
		who := fmt.Sprintf("Process %d (role %s, %s, %s)", b.PID, b.Role, named(b.Application), b.State)
		mend := fmt.Sprintf("SELECT pg_terminate_backend(%d);  -- it rolls back", b.PID)

		switch {
		case b.Seconds == nil && !b.Whole:
			result.note("Process %d of role %s has rows locked. For how long, this role doesn't see: GRANT pg_read_all_stats TO %s;",
				b.PID, b.Role, p.forRole)
		case b.Seconds != nil && *b.Seconds < p.limits.Blocker.Seconds():
		case b.Whole:
			p.locked = true
			result.find(Error, "table-locked", fmt.Sprintf("%s has %s locked (%s).", who, p.table, b.Mode),
				"All calls hang, and holders lose their locks if that lasts. VACUUM FULL, CLUSTER and most of ALTER TABLE do it.", mend)
		default:
			result.find(Warning, "rows-locked", fmt.Sprintf("%s has had rows of %s locked for %s.", who, p.table, seconds(*b.Seconds)),
				"Calls for these locks hang, and their holders can't renew and lose them. It is a guarded transaction that takes "+
					"long, or a client that is gone.",
				mend+fmt.Sprintf("\nALTER ROLE %s SET idle_in_transaction_session_timeout = '30s';  -- ends such sessions", b.Role))
		}
	}

	result.seen("%s with locks on the table, %d too old", many(int64(len(found)), "transaction"), len(result.findings))

	if p.locked {
		return nil
	}

	return checkWaits(ctx, p, result)
}

// checkWaits finds what keeps a call waiting though it isn't too old, or waits for its lock itself. The library, which
// later checks call, would wait for it.
func checkWaits(ctx context.Context, p *patient, result *Check) error {
	_, err := readList(ctx, p, "LOCK TABLE "+p.table+" IN ROW EXCLUSIVE MODE")
	if !slow(err) {
		return nil //nolint:nilerr // without the privilege, and where there is no such statement, other checks tell
	}

	p.locked = true
	result.find(Warning, "table-locked", fmt.Sprintf("Another transaction has %s locked, or waits to lock it.", p.table),
		"All calls hang, and holders lose their locks if that lasts. VACUUM FULL, CLUSTER and most of ALTER TABLE do it.",
		fmt.Sprintf("-- Run the doctor again. If it persists:\nSELECT pid, mode, granted FROM pg_locks WHERE relation = %s::regclass;",
			quoteText(p.table)))

	return nil
}

// named is the application_name for people.
func named(application string) string {
	if application == "" {
		return "no application_name"
	}

	return fmt.Sprintf("%q", application)
}
