package pglocker_test

import (
	"bytes"
	"database/sql"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/migrations"
)

// useFunctions takes and releases a lock by the functions of a table.
func useFunctions(t *testing.T, db *sql.DB, cfg *pglocker.Config) {
	t.Helper()

	c := contract.NewSQLClient(db, cfg)

	g, err := c.Acquire(t.Context(), "by SQL", time.Minute, "me")
	if err != nil || !g.Acquired {
		t.Fatalf("acquire_lock: %+v, %v", g, err)
	}

	if _, held, err := c.Renew(t.Context(), "by SQL", g.Token, time.Minute); err != nil || !held {
		t.Errorf("renew_lock: %t, %v", held, err)
	}

	tx, err := db.BeginTx(t.Context(), nil)
	contract.Must(t, err)
	contract.Must(t, c.AssertHeld(t.Context(), tx, "by SQL", g.Token))
	contract.Must(t, tx.Commit())

	if held, err := c.Release(t.Context(), "by SQL", g.Token); err != nil || !held {
		t.Errorf("release_lock: %t, %v", held, err)
	}
}

// procedures lists the functions of a schema, with the transactions that made them.
func procedures(t *testing.T, db *sql.DB, schema string) string {
	t.Helper()

	return contract.Query[string](t, db, `SELECT coalesce(string_agg(p.proname || ' ' || p.xmin::text, ', ' ORDER BY p.proname), '')
		FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace WHERE n.nspname = $1`, schema)
}

// migrateLogging is MigrateDB that returns what it logged.
func migrateLogging(t *testing.T, db *sql.DB, cfg pglocker.Config) string {
	t.Helper()

	var log bytes.Buffer

	cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	contract.Must(t, pglocker.MigrateDB(t.Context(), db, &cfg))

	return log.String()
}

// TestMigrateFunctions: an older table gets the functions, older functions are replaced, and those that
// the file has made stay as they are.
func TestMigrateFunctions(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		url := contract.NewDatabase(t)
		db := contract.Open(t, driver, url)
		cfg := &pglocker.Config{}

		contract.MakeTable(t, db, contract.ThreeColumns)
		contract.Must(t, pglocker.MigrateDB(t.Context(), db, cfg))
		useFunctions(t, db, cfg)

		file, err := fs.ReadFile(migrations.FS, "0002_functions.sql")
		contract.Must(t, err)
		contract.Exec(t, contract.Open(t, "postgres", url), string(file)) // which takes many statements in one text

		made := procedures(t, db, "pglocker")
		contract.Must(t, pglocker.MigrateDB(t.Context(), db, cfg))

		if got := procedures(t, db, "pglocker"); got != made {
			t.Errorf("the file has made %s, and after MigrateDB there are %s", made, got)
		}

		want := contract.Described(t, db, "pglocker.lock_statuses")

		for what, older := range map[string][]string{
			"one is missing": {"DROP FUNCTION pglocker.renew_lock(text, bigint, interval)"},
			"another body": {`CREATE OR REPLACE FUNCTION pglocker.release_lock(lock_id text, token bigint) RETURNS boolean
				LANGUAGE sql AS 'SELECT true -- github.com/ismurov/pglocker'`},
			"another result": {"DROP FUNCTION pglocker.release_lock(text, bigint)", `CREATE FUNCTION
				pglocker.release_lock(lock_id text, token bigint) RETURNS text LANGUAGE sql AS $$SELECT 'github.com/ismurov/pglocker'$$`},
			"a setting is missing": {"ALTER FUNCTION pglocker.release_lock(text, bigint) RESET jit"},
			"other names": {"DROP FUNCTION pglocker.assert_held(text, bigint)", `CREATE FUNCTION
				pglocker.assert_held(id text, token bigint) RETURNS void LANGUAGE sql AS '-- github.com/ismurov/pglocker'`},
			"another answer": {"DROP FUNCTION pglocker.acquire_lock(text, interval, text)", `CREATE FUNCTION
				pglocker.acquire_lock(lock_id text, ttl interval, owner text, OUT token bigint, OUT holder text)
				LANGUAGE sql AS $$SELECT 1::bigint, 'github.com/ismurov/pglocker'$$`},
		} {
			for _, text := range older {
				contract.Exec(t, db, text)
			}

			if log := migrateLogging(t, db, pglocker.Config{}); log != "" {
				t.Errorf("%s: %s", what, log)
			}

			if got := contract.Described(t, db, "pglocker.lock_statuses"); !slices.Equal(got, want) {
				t.Errorf("%s: MigrateDB leaves\n%s", what, strings.Join(got, "\n"))
			}
		}

		// What an administrator has set stays, as long as the function does.
		contract.Exec(t, db, "ALTER FUNCTION pglocker.assert_held(text, bigint) SECURITY DEFINER")
		contract.Exec(t, db, "REVOKE EXECUTE ON FUNCTION pglocker.assert_held(text, bigint) FROM PUBLIC")
		contract.Exec(t, db, "ALTER FUNCTION pglocker.assert_held(text, bigint) SET statement_timeout TO '1s'")

		made = procedures(t, db, "pglocker")
		contract.Must(t, pglocker.MigrateDB(t.Context(), db, cfg))

		if got := procedures(t, db, "pglocker"); got != made {
			t.Errorf("an administrator has made %s, and after MigrateDB there are %s", made, got)
		}
	})
}

// TestFunctionNames: tables of one schema have functions of their own, under names with the table's in
// front. A table whose name leaves no room for that has none.
func TestFunctionNames(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		db := contract.Open(t, driver, contract.NewDatabase(t))
		longest := strings.Repeat("x", 63-len("_acquire_lock"))

		for _, cfg := range []pglocker.Config{
			{}, {Table: "locks"}, {Scheme: oddName, Table: oddName}, {Table: "$pglocker$"}, {Table: longest}, {Table: "{row} %"},
		} {
			if log := migrateLogging(t, db, cfg); log != "" {
				t.Errorf("%q: %s", cfg.Table, log)
			}

			useFunctions(t, db, &cfg)
		}

		if got := contract.Query[int64](t, db, "SELECT generation FROM pglocker.locks"); got != 3 {
			t.Errorf("generation %d, want 3: one grant, one release", got)
		}

		long := pglocker.Config{Table: longest + "x"}
		before := procedures(t, db, "pglocker")

		if log := migrateLogging(t, db, long); !strings.Contains(log, "63 bytes") {
			t.Errorf("a long name: %q, want the cause", log)
		}

		if got := procedures(t, db, "pglocker"); got != before {
			t.Errorf("functions were %s and are %s", before, got)
		}
	})
}

// TestMigrateWithoutFunctions: where the functions can't be made, the log says why, and the table is made
// all the same.
func TestMigrateWithoutFunctions(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		for what, c := range map[string]struct {
			before []string
			says   string
		}{
			"another's function": {[]string{
				"CREATE SCHEMA pglocker",
				"CREATE FUNCTION pglocker.assert_held(text, bigint) RETURNS int LANGUAGE sql AS 'SELECT 1'",
			}, "another function has the name"},
			"no plpgsql": {[]string{"DROP EXTENSION plpgsql"}, "lacks the language plpgsql"},
			"a trigger that refuses": {[]string{
				"CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'no functions here'; END$$",
				"CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE FUNCTION') EXECUTE FUNCTION refuse()",
			}, "no functions here"},
		} {
			db := contract.Open(t, driver, contract.NewDatabase(t))
			for _, text := range c.before {
				contract.Exec(t, db, text)
			}

			before := procedures(t, db, "pglocker")

			for range 2 {
				log := migrateLogging(t, db, pglocker.Config{})
				if strings.Count(log, "level=INFO") != 1 || !strings.Contains(log, c.says) {
					t.Errorf("%s: the log has %q, want one line with %q", what, log, c.says)
				}
			}

			if got := procedures(t, db, "pglocker"); got != before {
				t.Errorf("%s: functions were %q and are %q", what, before, got)
			}

			locker, err := pglocker.New(db, &pglocker.Config{})
			contract.Must(t, err)

			if status, err := locker.AcquireLock(t.Context(), "a", time.Minute); err != nil || status.Owner == "" {
				t.Errorf("%s: AcquireLock: %+v, %v", what, status, err)
			}
		}

		// A standby of a server whose table is older than the functions.
		url := contract.NewDatabase(t)
		db := contract.Open(t, driver, url)
		contract.Must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))
		contract.Exec(t, db, "DROP FUNCTION pglocker.renew_lock(text, bigint, interval)")
		contract.Exec(t, db, `DO $$ BEGIN
			EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`)

		if log := migrateLogging(t, contract.Open(t, driver, url), pglocker.Config{}); !strings.Contains(log, "read-only") {
			t.Errorf("read-only: the log has %q", log)
		}
	})
}

// TestSQLReleaseNotifies: release_lock notifies where a waiter of a Locker has left its mark, with the
// lock's id, and nowhere else. So the waiter has the lock without a poll.
func TestSQLReleaseNotifies(t *testing.T) {
	t.Parallel()

	var (
		ctx    = t.Context()
		url    = contract.NewDatabase(t)
		waiter = contract.NewLocker(t, "pgx", url)
		direct = contract.Open(t, "pgx", url)
		c      = contract.NewSQLClient(direct, &pglocker.Config{})
		e      = newEar(t, url)
	)

	acquire := func() int64 {
		t.Helper()

		g, err := c.Acquire(ctx, "a", time.Hour, "me")
		if err != nil || !g.Acquired {
			t.Fatalf("acquire_lock: %+v, %v", g, err)
		}

		return g.Token
	}

	contract.Must(t, contract.Second(c.Release(ctx, "a", acquire())))

	if got := e.heard(t); len(got) > 0 {
		t.Errorf("without a waiter, release_lock notified %q", got)
	}

	token := acquire()
	granted := make(chan time.Time, 1)

	go func() {
		lock, err := waiter.Lock(ctx, "a", time.Minute)
		at := time.Now()

		if err == nil {
			err = lock.Unlock(ctx)
		}

		if err != nil {
			t.Error(err)
		}

		granted <- at
	}()

	contract.Await(t, "the waiter asks to be notified", func() bool {
		return contract.Query[bool](t, direct, `SELECT coalesce(contended_until > clock_timestamp() + interval '5 s', false)
			FROM pglocker.lock_statuses WHERE lock_id = 'a'`)
	})

	released := time.Now()

	contract.Must(t, contract.Second(c.Release(ctx, "a", token)))

	// Without the notification it would look after two to four seconds.
	if took := contract.Receive(t, "the waiter has the lock", granted).Sub(released); took > time.Second {
		t.Errorf("the waiter had the lock %s after release_lock", took)
	}

	if got := e.heard(t); len(got) == 0 || got[0] != "a" {
		t.Errorf("release_lock notified %q, want the lock's id", got)
	}
}
