package doctor

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ismurov/pglocker/internal/contract"
)

// plant is an illness that SQL brings about.
type plant struct {
	name string
	// sql makes a database ill. {app} is the role of programs.
	sql string
	// byApp: the doctor comes as that role, and not as a superuser.
	byApp bool
	// needs is a query that says whether the server can have the illness.
	needs  string
	limits func(*Limits)
	// open leaves a transaction open in which this text has run, by the other role.
	open string
	want []string
	// check and note say what is noted, and not found.
	check, note string
	// retried: a session of another database that starts may keep dead rows, so what mends it is repeated.
	retried bool
	// incurable: no statement mends it.
	incurable bool
}

const (
	thousands = `INSERT INTO pglocker.lock_statuses (lock_id, generation, expires_at)
		SELECT 'lock-' || n, 2, now() - interval '1 day' FROM generate_series(1, 30000) AS n;`
	afterwards = `SELECT pg_stat_force_next_flush()`
	since15    = "SELECT current_setting('server_version_num')::int >= 150000"
	twoPhase   = "SELECT current_setting('max_prepared_transactions')::int > 0"
)

var plants = []plant{
	{name: "no table", sql: "DROP TABLE pglocker.lock_statuses", want: []string{"no-table"}},
	{
		name: "three columns", sql: "ALTER TABLE pglocker.lock_statuses DROP owner, DROP acquired_at, DROP contended_until",
		want: []string{"migrations"}, check: "table", note: "waiters poll",
	},
	{name: "storage is not set", sql: "ALTER TABLE pglocker.lock_statuses RESET (fillfactor)", want: []string{"migrations"}},
	{
		name: "an older function", want: []string{"migrations"},
		sql: `CREATE OR REPLACE FUNCTION pglocker.assert_held(lock_id text, token bigint) RETURNS void LANGUAGE plpgsql
			AS 'BEGIN /* github.com/ismurov/pglocker */ END'`,
	},

	{name: "unlogged", sql: "ALTER TABLE pglocker.lock_statuses SET UNLOGGED", want: []string{"invalid-table"}},
	{name: "inheritance", sql: "CREATE TABLE heir () INHERITS (pglocker.lock_statuses)", want: []string{"invalid-table"}},
	{name: "a rule", sql: "CREATE RULE odd AS ON INSERT TO pglocker.lock_statuses DO INSTEAD NOTHING", want: []string{"invalid-table"}},
	{name: "seconds", sql: "ALTER TABLE pglocker.lock_statuses ALTER expires_at TYPE timestamptz(0)", want: []string{"invalid-table"}},
	{name: "a small generation", sql: "ALTER TABLE pglocker.lock_statuses ALTER generation TYPE int", want: []string{"invalid-table"}},
	{name: "a short owner", sql: "ALTER TABLE pglocker.lock_statuses ALTER owner TYPE varchar(40)", want: []string{"invalid-table"}},
	{name: "NOT NULL", sql: "ALTER TABLE pglocker.lock_statuses ALTER owner SET NOT NULL", want: []string{"invalid-table"}},
	{name: "no primary key", sql: "ALTER TABLE pglocker.lock_statuses DROP CONSTRAINT lock_statuses_pkey", want: []string{"invalid-table"}},
	{name: "a unique index", sql: "CREATE UNIQUE INDEX odd ON pglocker.lock_statuses (generation)", want: []string{"invalid-table", "index"}},
	{
		name: "a coarse collation", want: []string{"invalid-table"},
		needs: "SELECT count(*) > 0 FROM pg_collation WHERE collprovider = 'i'",
		sql: `CREATE COLLATION coarse (provider = icu, locale = 'und-u-ks-level1', deterministic = false);
			ALTER TABLE pglocker.lock_statuses ALTER lock_id TYPE text COLLATE coarse`,
	},

	{name: "an index", sql: "CREATE INDEX odd ON pglocker.lock_statuses (expires_at)", want: []string{"index"}},
	{name: "an index on an expression", sql: "CREATE INDEX odd ON pglocker.lock_statuses (lower(owner))", want: []string{"index"}},
	{name: "an index with a condition", sql: "CREATE INDEX odd ON pglocker.lock_statuses (lock_id) WHERE generation > 5", want: []string{"index"}},
	{
		name: "a trigger", want: []string{"trigger"},
		sql: `CREATE FUNCTION odd() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
			CREATE TRIGGER odd BEFORE UPDATE ON pglocker.lock_statuses FOR EACH ROW EXECUTE FUNCTION odd()`,
	},
	{name: "row-level security", sql: "ALTER TABLE pglocker.lock_statuses ENABLE ROW LEVEL SECURITY", want: []string{"row-security"}},
	{name: "no policy", sql: "ALTER TABLE pglocker.lock_statuses ENABLE ROW LEVEL SECURITY", byApp: true, want: []string{"policy", "row-security"}},
	{
		name: "another collation", sql: `ALTER TABLE pglocker.lock_statuses ALTER lock_id TYPE text COLLATE "default"`,
		check: "table", note: "listing by a prefix",
	},
	{
		name: "partitions", want: []string{"storage"}, check: "table", note: "partitioned",
		sql: `DROP TABLE pglocker.lock_statuses;
			CREATE TABLE pglocker.lock_statuses (lock_id text COLLATE "C" PRIMARY KEY, generation bigint NOT NULL, expires_at timestamptz NOT NULL,
				owner text, acquired_at timestamptz, contended_until timestamptz) PARTITION BY HASH (lock_id);
			CREATE TABLE pglocker.part PARTITION OF pglocker.lock_statuses FOR VALUES WITH (MODULUS 1, REMAINDER 0)`,
	},

	{name: "no SELECT", sql: "REVOKE SELECT ON pglocker.lock_statuses FROM {app}", byApp: true, want: []string{"privilege"}},
	{name: "no UPDATE", sql: "REVOKE UPDATE ON pglocker.lock_statuses FROM {app}", byApp: true, want: []string{"privilege"}},
	{
		name: "no UPDATE of a column", byApp: true, want: []string{"privilege"},
		sql: `REVOKE UPDATE ON pglocker.lock_statuses FROM {app};
			GRANT UPDATE (generation, expires_at) ON pglocker.lock_statuses TO {app}`,
	},
	{name: "no USAGE", sql: "REVOKE USAGE ON SCHEMA pglocker FROM {app}", byApp: true, want: []string{"privilege"}},
	{name: "no DELETE", byApp: true, check: "privileges", note: "GRANT DELETE ON pglocker.lock_statuses TO {app}"},
	{
		name: "an owner", byApp: true, sql: "ALTER TABLE pglocker.lock_statuses OWNER TO {app}",
		check: "privileges", note: "The role owns the table",
	},
	{
		name: "no EXECUTE", sql: "REVOKE EXECUTE ON FUNCTION pglocker.assert_held FROM PUBLIC", byApp: true,
		check: "privileges", note: "GRANT EXECUTE ON FUNCTION pglocker.assert_held(text,bigint) TO {app}",
	},

	{name: "fillfactor", sql: "ALTER TABLE pglocker.lock_statuses SET (fillfactor = 100)", want: []string{"storage"}},
	{name: "late autovacuum", sql: "ALTER TABLE pglocker.lock_statuses SET (autovacuum_vacuum_threshold = 1000000)", want: []string{"storage"}},
	{name: "no autovacuum", sql: "ALTER TABLE pglocker.lock_statuses SET (autovacuum_enabled = false)", want: []string{"autovacuum-off"}},
	{
		name: "dead rows", retried: true, needs: since15, want: []string{"dead-rows"}, limits: func(l *Limits) { l.DeadRows = 100 },
		sql: `INSERT INTO pglocker.lock_statuses SELECT 'lock-' || n, 2, now() FROM generate_series(1, 200) AS n;
			DELETE FROM pglocker.lock_statuses;` + afterwards,
	},
	{
		name: "bloat", retried: true, needs: since15, want: []string{"bloated"}, limits: func(l *Limits) { l.BigTable = 100 << 10; l.DeadRows = 1 << 40 },
		sql: thousands + "DELETE FROM pglocker.lock_statuses WHERE lock_id <> 'lock-30000'; ANALYZE pglocker.lock_statuses;" + afterwards,
	},
	{
		name: "no HOT updates", needs: since15, want: []string{"index", "not-hot"}, limits: func(l *Limits) { l.Updates = 100 },
		sql: `CREATE INDEX odd ON pglocker.lock_statuses (expires_at);
			INSERT INTO pglocker.lock_statuses SELECT 'lock-' || n, 2, now() - interval '1 day' FROM generate_series(1, 200) AS n;
			UPDATE pglocker.lock_statuses SET expires_at = expires_at - interval '1 s';` + afterwards,
	},
	{name: "statistics", sql: thousands + afterwards, needs: since15, want: []string{"statistics"}},
	{
		name: "a scan of the table", incurable: true, want: []string{"seq-scan"},
		sql: thousands + "ANALYZE pglocker.lock_statuses;" +
			`ALTER ROLE {app} SET enable_indexscan = off; ALTER ROLE {app} SET enable_bitmapscan = off;
			ALTER ROLE {app} SET enable_indexonlyscan = off`, byApp: true,
	},

	{
		name: "an old transaction", open: "SELECT txid_current()", want: []string{"old-transaction"},
		limits: func(l *Limits) { l.OldTransaction = time.Millisecond },
	},
	{
		name: "locked rows", open: "SELECT FROM pglocker.lock_statuses WHERE lock_id = 'a' FOR UPDATE", want: []string{"rows-locked"},
		sql:    "INSERT INTO pglocker.lock_statuses VALUES ('a', 2, now() - interval '1 day')",
		limits: func(l *Limits) { l.Blocker = time.Millisecond },
	},
	{
		name: "a locked table", open: "LOCK TABLE pglocker.lock_statuses", want: []string{"table-locked"},
		limits: func(l *Limits) { l.Blocker = time.Millisecond },
	},
	{name: "rows that are locked, seen by a poor role", byApp: true, open: "SELECT FROM pglocker.lock_statuses FOR UPDATE", check: "blockers", note: "GRANT pg_read_all_stats TO {app}"},
	{
		name: "a prepared transaction", needs: twoPhase, want: []string{"prepared-transaction"},
		sql:    "BEGIN; SELECT txid_current(); PREPARE TRANSACTION '{app}'",
		limits: func(l *Limits) { l.OldTransaction = time.Millisecond },
	},
	{
		name: "a prepared transaction on the table", needs: twoPhase, want: []string{"prepared-transaction"},
		sql: `INSERT INTO pglocker.lock_statuses VALUES ('a', 2, now() - interval '1 day'); BEGIN;
			SELECT FROM pglocker.lock_statuses FOR UPDATE; PREPARE TRANSACTION '{app}'`,
		limits: func(l *Limits) { l.Blocker = time.Millisecond },
	},

	{name: "statement_timeout", sql: "ALTER ROLE {app} SET statement_timeout = '900ms'", byApp: true, want: []string{"statement-timeout"}},
	{name: "lock_timeout", sql: "ALTER ROLE {app} SET lock_timeout = '50ms'", byApp: true, want: []string{"lock-timeout"}},
	{
		name: "idle_in_transaction_session_timeout", byApp: true, want: []string{"idle-in-transaction-session-timeout"},
		sql: "ALTER ROLE {app} SET idle_in_transaction_session_timeout = '900ms'",
	},
	{
		name: "idle_session_timeout", byApp: true, want: []string{"idle-session-timeout"},
		needs: "SELECT current_setting('server_version_num')::int >= 140000", sql: "ALTER ROLE {app} SET idle_session_timeout = '60s'",
	},
	{
		name: "transaction_timeout", byApp: true, want: []string{"transaction-timeout"},
		needs: "SELECT current_setting('server_version_num')::int >= 170000", sql: "ALTER ROLE {app} SET transaction_timeout = '900ms'",
	},
	{
		name: "no idle_in_transaction_session_timeout", byApp: true, check: "timeouts",
		note: "ALTER ROLE {app} SET idle_in_transaction_session_timeout = '30s'",
	},

	{name: "a public schema", sql: "GRANT CREATE ON SCHEMA public TO PUBLIC", check: "search_path", note: "REVOKE CREATE ON SCHEMA public FROM PUBLIC"},
	{
		name: "a hostile operator", check: "search_path", note: "public.* (bigint, interval)", byApp: true,
		sql: `CREATE FUNCTION public.evil(bigint, interval) RETURNS interval LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END';
			CREATE OPERATOR public.* (LEFTARG = bigint, RIGHTARG = interval, FUNCTION = public.evil)`,
	},
	{
		name: "hostile functions", check: "search_path", note: "evil.clock_timestamp()", byApp: true,
		sql: `CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;
			CREATE FUNCTION evil.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END';
			CREATE FUNCTION evil.pg_backend_pid() RETURNS int LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END';
			CREATE FUNCTION evil.current_setting(text) RETURNS text LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END';
			CREATE FUNCTION evil.current_schemas(boolean) RETURNS name[] LANGUAGE plpgsql AS 'BEGIN RAISE ''called''; END';
			ALTER ROLE {app} SET search_path = evil, pg_catalog`,
	},
	{name: "synchronous_commit", sql: "ALTER ROLE {app} SET synchronous_commit = off", byApp: true, check: "durability", note: "synchronous_commit is off"},
	{name: "isolation", sql: "ALTER ROLE {app} SET default_transaction_isolation = 'serializable'", byApp: true, check: "server", note: `"serializable"`},
	{name: "read-only", sql: "ALTER ROLE {app} SET default_transaction_read_only = on", byApp: true, want: []string{"read-only"}},
	{name: "no timeline", sql: "REVOKE EXECUTE ON FUNCTION pg_current_wal_insert_lsn() FROM PUBLIC", byApp: true, want: []string{"timeline"}},
	{name: "no pg_notify", sql: "REVOKE EXECUTE ON FUNCTION pg_notify FROM PUBLIC", byApp: true, want: []string{"not-notified"}},
	{
		name: "few connections of the database", incurable: true, want: []string{"connections"},
		sql: "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 1', current_database()); END $$",
	},
	{
		name: "few connections of the role", byApp: true, incurable: true, want: []string{"connections"},
		sql: "ALTER ROLE {app} CONNECTION LIMIT 3", limits: func(l *Limits) { l.Connections = 0.1 },
	},

	{
		name: "a lock that is held for long", incurable: true, want: []string{"long-held"},
		sql: `INSERT INTO pglocker.lock_statuses VALUES ('a', 5, now() + interval '1 hour', 'x#1', now() - interval '2 days'),
			('pglocker:election:e', 5, now() + interval '1 hour', 'x#2', now() - interval '2 years')`,
	},
	{
		name: "a crash", incurable: true, want: []string{"crashed"},
		sql: `INSERT INTO pglocker.lock_statuses VALUES ('a', 5, now() - interval '1 minute', 'x#1', now() - interval '2 minutes'),
			('long ago', 5, now() - interval '2 years', 'x#1', now() - interval '3 years'),
			('infinite', 5, '-infinity', 'x#1', '-infinity')`,
	},
	{
		name: "a lease that isn't renewed", incurable: true, want: []string{"not-renewed"}, limits: func(l *Limits) { l.Crashed = 0 },
		sql: "INSERT INTO pglocker.lock_statuses VALUES ('a', 5, clock_timestamp() + interval '1.9 s', 'x#1', now())",
	},
}

// TestPlanted: what is planted is found, and nothing else. What the doctor says mends it.
func TestPlanted(t *testing.T) {
	t.Parallel()

	for _, plant := range plants {
		t.Run(plant.name, func(t *testing.T) {
			t.Parallel()
			plant.try(t)
		})
	}
}

func (p plant) try(t *testing.T) {
	w := newWard(t)
	named := func(text string) string { return strings.ReplaceAll(text, "{app}", w.app) }

	if p.needs != "" && !contract.Query[bool](t, w.db, p.needs) {
		t.Skip("not on this server: " + p.needs)
	}

	if p.limits != nil {
		p.limits(&w.limits)
	}

	by, other := w.url, w.appURL
	if p.byApp {
		by, other = other, by
	}

	w.connect(w.url, named(p.sql))

	if p.open != "" {
		w.connect(other, "BEGIN; "+p.open)
	}

	report := w.examine(by)
	finds(t, "planted", report, p.want...)

	if p.note != "" {
		notes(t, report, p.check, named(p.note))
	}

	if p.incurable || len(p.want) == 0 {
		return
	}

	w.mend(report)

	if p.retried {
		contract.Await(t, "it is mended", func() bool {
			w.mend(report)

			return len(names(w.examine(by))) == 0
		})
	}

	finds(t, "mended", w.examine(by))
}

// connect opens a connection and runs statements on it. It is closed when the test ends, if not before.
func (w *ward) connect(databaseURL, text string) *pgx.Conn {
	w.t.Helper()

	conn, err := pgx.Connect(w.t.Context(), databaseURL)
	contract.Must(w.t, err)
	w.t.Cleanup(func() { _ = conn.Close(context.Background()) }) // what mends may have closed it

	_, err = conn.Exec(w.t.Context(), text)
	contract.Must(w.t, err)

	return conn
}
