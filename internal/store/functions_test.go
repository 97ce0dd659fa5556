package store_test

import (
	"database/sql"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/migrations"
)

var update = flag.Bool("update", false, "write migrations/0002_functions.sql")

// TestFunctionsFile: the file has the functions as MigrateDB makes them, to the byte. Else MigrateDB
// would replace what the file has made, which needs a right.
func TestFunctionsFile(t *testing.T) {
	t.Parallel()

	const name = "0002_functions.sql"

	text, err := migrations.FS.ReadFile(name)
	must(t, err)

	head, functions, _ := strings.Cut(string(text), "\n\n")
	if want := store.FunctionsFile(); "\n"+functions != want {
		if *update {
			must(t, os.WriteFile("../../migrations/"+name, []byte(head+"\n"+want), 0o644))
		}

		t.Errorf("%s differs from what MigrateDB makes: run this test with -update", name)
	}
}

// sqlLock calls the functions of a table, and must succeed.
type sqlLock struct {
	t  *testing.T
	db *sql.DB
	c  *contract.SQLClient
	id string
}

func newSQLLock(t *testing.T, db *sql.DB, id string) sqlLock {
	return sqlLock{t, db, contract.NewSQLClient(db, &pglocker.Config{Scheme: table.Schema, Table: table.Name}), id}
}

func (l sqlLock) acquire() int64 {
	l.t.Helper()

	g, err := l.c.Acquire(l.t.Context(), l.id, ttl, "me")
	if err != nil || !g.Acquired {
		l.t.Fatalf("acquire_lock: %+v, %v", g, err)
	}

	return g.Token
}

func (l sqlLock) renew(token int64) {
	l.t.Helper()

	if _, held, err := l.c.Renew(l.t.Context(), l.id, token, ttl); err != nil || !held {
		l.t.Fatalf("renew_lock: %t, %v", held, err)
	}
}

func (l sqlLock) release(token int64) {
	l.t.Helper()

	if held, err := l.c.Release(l.t.Context(), l.id, token); err != nil || !held {
		l.t.Fatalf("release_lock: %t, %v", held, err)
	}
}

func (l sqlLock) assert(token int64) {
	l.t.Helper()

	tx, err := l.db.BeginTx(l.t.Context(), nil)
	must(l.t, err)
	must(l.t, l.c.AssertHeld(l.t.Context(), tx, l.id, token))
	must(l.t, tx.Commit())
}

// through goes through everything that the functions do: both kinds of grant, and the rest.
func (l sqlLock) through() {
	l.t.Helper()

	first := l.acquire()
	l.renew(first)
	l.assert(first)
	l.release(first)

	if second := l.acquire(); second <= first {
		l.t.Errorf("token %d after %d", second, first)
	}
}

// TestFunctionsAreDurable: grants and renewals are as durable as this package's, releases as lazy. The
// commit of a longer transaction, which wrote something before a release, stays as it is.
func TestFunctionsAreDurable(t *testing.T) {
	t.Parallel()

	for setting, want := range map[string]string{
		"off": "on", "local": "on", "remote_write": "on", "on": "on", "remote_apply": "remote_apply",
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			eachDriver(t, func(t *testing.T, driver string) {
				url := newDatabase(t).String()
				admin := contract.Open(t, driver, url)
				must(t, store.Migrate(t.Context(), admin, table, nil))

				// A deferred trigger runs as a part of the commit.
				contract.Exec(t, admin, `CREATE TABLE commits (n serial, setting text)`)
				contract.Exec(t, admin, `CREATE TABLE work (n int)`)
				contract.Exec(t, admin, `CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
					INSERT INTO public.commits (setting) VALUES (current_setting('synchronous_commit'));
					RETURN NULL; END $$`)
				contract.Exec(t, admin, `CREATE CONSTRAINT TRIGGER record AFTER INSERT OR UPDATE ON `+table.String()+`
					DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION record()`)
				contract.Exec(t, admin, `DO $$ BEGIN EXECUTE format(
					'ALTER DATABASE %I SET synchronous_commit = `+setting+`', current_database()); END $$`)

				db := contract.Open(t, driver, url)
				l := newSQLLock(t, db, "a")
				committed := func(what, want string) {
					t.Helper()

					if got := contract.Query[string](t, admin, "SELECT setting FROM commits ORDER BY n DESC LIMIT 1"); got != want {
						t.Errorf("%s was committed with synchronous_commit = %s, want %s", what, got, want)
					}

					if got := contract.Query[string](t, db, "SHOW synchronous_commit"); got != setting {
						t.Errorf("after %s the session's setting is %s", what, got)
					}
				}

				first := l.acquire()
				committed("a first grant", want)
				l.renew(first)
				committed("a renewal", want)
				l.release(first)
				committed("a release", "off")

				second := l.acquire()
				committed("a grant", want)

				// Two calls in one transaction. $ is the token.
				var (
					release = "SELECT " + l.c.Function("release_lock") + "('a', $)"
					assert  = "SELECT " + l.c.Function("assert_held") + "('a', $)"
					acquire = "SELECT " + l.c.Function("acquire_lock") + "('b', '1 min', 'me')"
				)

				for _, both := range []struct{ what, first, then, want string }{
					{"a release after a write", "INSERT INTO work VALUES (1)", release, setting},
					{"a release after assert_held", assert, release, setting},
					{"a release after a grant", acquire, release, want},
					{"a grant after a release", release, acquire, "on"}, // which set it to off
				} {
					tx, err := db.BeginTx(t.Context(), nil)
					must(t, err)

					for _, text := range []string{both.first, both.then} {
						_, err = tx.ExecContext(t.Context(), strings.ReplaceAll(text, "$", fmt.Sprint(second)))
						must(t, err)
					}

					must(t, tx.Commit())
					committed(both.what, both.want)

					contract.Exec(t, admin, "DELETE FROM "+table.String()+" WHERE lock_id = 'b'")
					second = l.acquire()
				}
			})
		})
	}
}

// TestFunctionsWriteNothingInVain: what is refused takes no transaction id.
func TestFunctionsWriteNothingInVain(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)
		l := newSQLLock(t, db, "a")
		held, err := s.Acquire(t.Context(), "a", "me#12345678.1", ttl, margin)
		must(t, err)

		tx, err := db.BeginTx(t.Context(), nil)
		must(t, err)

		defer func() { _ = tx.Rollback() }()

		for name, args := range map[string]string{"acquire_lock": "'1 min', 'me'", "renew_lock": "1, '1 min'", "release_lock": "1"} {
			_, err := tx.ExecContext(t.Context(), "SELECT "+l.c.Function(name)+"('a', "+args+")")
			must(t, err)

			var id *int64
			if err := tx.QueryRowContext(t.Context(), "SELECT txid_current_if_assigned()").Scan(&id); err != nil || id != nil {
				t.Errorf("%s in vain took a transaction id: %v", name, err)
			}
		}

		if res, err := s.Get(t.Context(), "a"); err != nil || res.Row.Generation != held.Row.Generation || res.Row.Owner != "me#12345678.1" {
			t.Errorf("%+v, %v", res, err)
		}
	})
}

// TestFunctionsOnTimeline: grants and releases have the floor of the server's timeline. Where a server
// refuses to tell it they do without.
func TestFunctionsOnTimeline(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		url := newDatabase(t).String()
		db := contract.Open(t, driver, url)
		must(t, store.Migrate(t.Context(), db, table, nil))

		old := newSQLLock(t, db, "old")
		held := old.acquire()

		onTimeline3(t, db)

		// A session keeps the plans of a function, and with them those functions that were renamed.
		db = contract.Open(t, driver, url)
		old = newSQLLock(t, db, "old")

		if got := newSQLLock(t, db, "first").acquire(); got != floorOf3 {
			t.Errorf("a first grant on timeline 3 has token %d, want %d", got, floorOf3)
		}

		old.release(held)

		if got := contract.Query[int64](t, db, "SELECT generation FROM "+table.String()+" WHERE lock_id = 'old'"); got != floorOf3 {
			t.Errorf("a release on timeline 3 leaves generation %d, want %d", got, floorOf3)
		}

		contract.Exec(t, db, "UPDATE "+table.String()+" SET generation = 5 WHERE lock_id = 'old'")

		if got := old.acquire(); got != floorOf3 {
			t.Errorf("a grant on timeline 3 has token %d, want %d", got, floorOf3)
		}

		for i, code := range []string{"55000", "0A000", "42501", "42883"} {
			refuseCall(t, db, "pg_current_wal_insert_lsn() RETURNS pg_lsn", code)

			l := newSQLLock(t, db, fmt.Sprint(i))
			if got := l.acquire(); got != 2 {
				t.Errorf("%s: token %d, want 2", code, got)
			}

			l.release(2)
		}

		// What passes is no reason to do without it.
		refuseCall(t, db, "pg_current_wal_insert_lsn() RETURNS pg_lsn", "57014")

		if g, err := old.c.Acquire(t.Context(), "other", ttl, "me"); err == nil {
			t.Errorf("acquire_lock: %+v, want an error", g)
		}
	})
}

// TestFunctionsAboveTheWatermark: the first grant of a lock continues above the watermark.
func TestFunctionsAboveTheWatermark(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		_, db := newStore(t, driver)
		contract.Exec(t, db, "INSERT INTO "+table.String()+" VALUES ('pglocker:watermark', 41, '-infinity')")

		tx, err := db.BeginTx(t.Context(), nil)
		must(t, err)
		_, err = tx.ExecContext(t.Context(), "UPDATE "+table.String()+" SET generation = 77")
		must(t, err)

		granted := make(chan int64, 1)

		go func() { granted <- newSQLLock(t, db, "a").acquire() }()

		contract.Await(t, "the grant waits for the watermark", func() bool { return contract.RowWaits(t, db) > 0 })
		must(t, tx.Commit())

		if got := contract.Receive(t, "the grant", granted); got != 78 {
			t.Errorf("token %d above a watermark of 77", got)
		}
	})
}

// TestFunctionsWaitForTheRow: a wait for the row takes nothing from the lease. A lease that ended in the
// wait isn't renewed, and a row that was granted meanwhile isn't granted.
func TestFunctionsWaitForTheRow(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		_, db := newStore(t, driver)
		l := newSQLLock(t, db, "a")
		l.release(l.acquire())

		// during runs a function while a transaction that made a change is open, until the function waits
		// for it and a last statement has run.
		during := func(change, last string, call func()) {
			t.Helper()

			tx, err := db.BeginTx(t.Context(), nil)
			must(t, err)
			_, err = tx.ExecContext(t.Context(), change)
			must(t, err)

			done := make(chan struct{})

			go func() {
				defer close(done)
				call()
			}()

			contract.Await(t, "the function waits", func() bool {
				select {
				case <-done: // what it wanted was over before
					return true
				default:
					return contract.RowWaits(t, db) > 0
				}
			})
			contract.Exec(t, db, last)
			must(t, tx.Commit())
			contract.Receive(t, "the function returns", done)
		}

		const lock = "SELECT FROM pglocker.lock_statuses FOR UPDATE"

		during(lock, "SELECT pg_sleep(0.1)", func() {
			g, err := l.c.Acquire(t.Context(), "a", ttl, "me")
			if err != nil || !g.Acquired || g.Remaining < ttl-50*time.Millisecond {
				t.Errorf("acquire_lock after a wait: %+v, %v", g, err)
			}
		})

		contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp()")
		during("UPDATE "+table.String()+" SET generation = 90, owner = 'you', expires_at = clock_timestamp() + interval '1 hour'", "", func() {
			if g, err := l.c.Acquire(t.Context(), "a", ttl, "me"); err != nil || g.Acquired || g.Holder != "you" {
				t.Errorf("acquire_lock of a lock that was granted in the wait: %+v, %v", g, err)
			}
		})

		contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp() + interval '250 ms'")
		during(lock, "SELECT pg_sleep(extract(epoch FROM expires_at - clock_timestamp())) FROM pglocker.lock_statuses", func() {
			if until, held, err := l.c.Renew(t.Context(), "a", 90, ttl); held {
				t.Errorf("renew_lock of a lease that ended in the wait: %s, %v", until, err)
			}
		})

		contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp() + interval '1 hour'")
		during("UPDATE "+table.String()+" SET generation = 91", "", func() {
			if until, held, err := l.c.Renew(t.Context(), "a", 90, ttl); held {
				t.Errorf("renew_lock of a lock that was granted in the wait: %s, %v", until, err)
			}
		})
	})
}

// TestFunctionsUnderOddSettings: no setting of the role or the database, and no further column of the
// table, changes what the functions do.
func TestFunctionsUnderOddSettings(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		url := newDatabase(t).String()
		admin := contract.Open(t, driver, url)
		must(t, store.Migrate(t.Context(), admin, table, nil))

		for _, name := range []string{
			"v", "id", "who", "given", "now", "floor", "token", "ttl", "holder", "acquired", "remaining", "locked", "rounds", "until",
		} {
			contract.Exec(t, admin, "ALTER TABLE "+table.String()+" ADD COLUMN "+name+" text")
		}

		settings := togetherOdd()
		settings["columns first"] = "plpgsql.variable_conflict = 'use_column'"
		settings["variables first"] = "plpgsql.variable_conflict = 'use_variable'"
		settings["strict"] = "plpgsql.extra_errors = 'all'"

		for what, setting := range settings {
			contract.Exec(t, admin, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET ALL', current_database()); END $$")

			for one := range strings.SplitSeq(setting, "; ") {
				if name, _, _ := strings.Cut(one, " = "); name == "" || name == "default_table_access_method" {
					continue // that of a method that isn't there would refuse the connection
				}

				contract.Exec(t, admin, fmt.Sprintf(
					"DO $do$ BEGIN EXECUTE format('ALTER DATABASE %%I SET %%s', current_database(), $$%s$$); END $do$", one))
			}

			db := contract.Open(t, driver, url)
			newSQLLock(t, db, what).through()

			// They are made under these settings, too.
			contract.Exec(t, db, "DROP FUNCTION pglocker.acquire_lock(text, interval, text)")
			must(t, store.Migrate(t.Context(), db, table, nil))
		}
	})
}
