package doctor

import (
	"context"
	"fmt"
	"strings"
)

// The versions of PostgreSQL that pglocker is tested with.
const oldest, newest = 12, 18

// sqlServer reads what decides whether, and how, this role may write: settings as a new session gets them.
const sqlServer = `
SELECT (SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_read_only'),
       (SELECT reset_val FROM pg_settings WHERE name = 'default_transaction_isolation'),
       current_setting('server_encoding')`

func checkServer(ctx context.Context, p *patient, result *Check) error {
	type settings struct{ ReadOnly, Isolation, Encoding string }

	s, err := readRow[settings](ctx, p, sqlServer)
	if err != nil {
		return err
	}

	product, _, _ := strings.Cut(p.product, " on ")
	place := "primary"

	if p.standby {
		place = "standby"

		result.find(Error, "standby", "The connection leads to a standby.",
			"Locks can be looked at, and not taken: ErrReadOnly. After a failover old connections may lead to one for ever.",
			"target_session_attrs=read-write  -- in the connection string, with all hosts; and SetConnMaxLifetime")
	}

	result.seen("%s, %s", product, place)

	switch major := p.version / 10000; {
	case major < oldest:
		result.find(Error, "version", product+" is older than all versions that pglocker is tested with.",
			fmt.Sprintf("pglocker may fail or break its promises. It is tested with PostgreSQL %d to %d.", oldest, newest),
			"-- Upgrade the server.")
	case major > newest:
		result.note("pglocker is tested with PostgreSQL %d to %d, and not with this one.", oldest, newest)
	}

	if !strings.HasPrefix(p.product, "PostgreSQL ") {
		result.note("This is a relative of PostgreSQL. A Locker finds out what it lacks, and logs it once.")
	}

	if s.ReadOnly == "on" && !p.standby {
		result.find(Error, "read-only", "default_transaction_read_only is on for this role and database.",
			"Locks can be looked at, and not taken: ErrReadOnly.",
			fmt.Sprintf("ALTER ROLE %s SET default_transaction_read_only = off;  -- or ALTER DATABASE, or ALTER SYSTEM", p.forRole))
	}

	if s.Isolation != "read committed" {
		result.note("default_transaction_isolation is %q. pglocker repeats what fails with 40001. In your transactions, "+
			"Guard must be the first statement.", s.Isolation)
	}

	if s.Encoding != "UTF8" && s.Encoding != "SQL_ASCII" {
		result.note("The database's encoding is %s. With pgx, put client_encoding=UTF8 into your programs' URL, or ids that "+
			"aren't ASCII are refused.", s.Encoding)
	}

	return nil
}

// checkTimeline tries what the tokens' floor is made of.
func checkTimeline(ctx context.Context, p *patient, result *Check) error {
	if p.standby {
		result.skip("a standby doesn't tell it")

		return nil
	}

	name, err := readList(ctx, p, "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)")

	const means = "Tokens grow by one, and a failover that loses commits can repeat some (guarantees.md, G1)."

	switch state := sqlState(err); {
	case err == nil:
		result.seen("timeline %s", strings.TrimLeft(name[0], "0"))
	case state == insufficientPrivilege:
		result.seen("not permitted")
		result.find(Warning, "timeline", "The role may not ask for the server's timeline: "+message(err)+".", means,
			fmt.Sprintf("GRANT EXECUTE ON FUNCTION pg_catalog.pg_walfile_name(pg_lsn), pg_catalog.pg_current_wal_insert_lsn() TO %s;",
				p.forRole))
	case state == "" || slow(err):
		return err
	default:
		result.seen("this server doesn't tell it")
		result.find(Warning, "timeline", "The server doesn't tell its timeline: "+message(err)+".", means,
			"-- On Amazon Aurora: wal_level = logical (rds.logical_replication). Elsewhere use the guard where tokens aren't enough.")
	}

	return nil
}

// sqlConnections counts what the limits bound. Each session is seen by every role, its kind is not.
const sqlConnections = `
WITH client AS (
    SELECT usesysid, datid FROM pg_stat_activity
     WHERE usename IS NOT NULL AND datid IS NOT NULL AND coalesce(backend_type, 'client backend') = 'client backend')
SELECT l.what, l.used, l.allowed
  FROM (SELECT 'the server (max_connections, less the reserved ones)', (SELECT count(*) FROM client),
               (SELECT sum(CASE name WHEN 'max_connections' THEN setting::bigint ELSE -setting::bigint END)::bigint
                  FROM pg_settings
                 WHERE name IN ('max_connections', 'superuser_reserved_connections', 'reserved_connections'))
         UNION ALL
        SELECT 'the database', (SELECT count(*) FROM client WHERE datid = d.oid), d.datconnlimit
          FROM pg_database AS d WHERE d.datname = current_database() AND d.datconnlimit >= 0
         UNION ALL
        SELECT 'the role', (SELECT count(*) FROM client WHERE usesysid = r.oid), r.rolconnlimit
          FROM pg_roles AS r WHERE r.rolname = current_user AND r.rolconnlimit >= 0
       ) AS l (what, used, allowed)`

func checkConnections(ctx context.Context, p *patient, result *Check) error {
	type limit struct {
		What          string
		Used, Allowed int64
	}

	limits, err := readRows[limit](ctx, p, sqlConnections)
	if err != nil {
		return err
	}

	for n, l := range limits {
		if n == 0 {
			result.seen("%d of %d in use", l.Used, l.Allowed)
		}

		if float64(l.Used) > p.limits.Connections*float64(l.Allowed) {
			result.find(Warning, "connections", fmt.Sprintf("%d of %d connections of %s are in use.", l.Used, l.Allowed, l.What),
				"A holder that can't open a connection can't renew, and loses its lock. Each Locker needs its pool and two more.",
				"SELECT application_name, usename, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3 ORDER BY 4 DESC;\n"+
					"-- Make pools smaller, put a pooler in transaction mode between, or raise the limit.")
		}
	}

	return nil
}
