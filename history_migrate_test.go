package pglocker_test

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/migrations"
)

// describeHistory is what the catalogs say of the function and the triggers of a history.
const describeHistory = `SELECT string_agg(line, ';' ORDER BY line) FROM (
	SELECT concat(prosrc, prosecdef, proconfig, proacl) AS line FROM pg_proc WHERE proname = 'lock_history'
	 UNION ALL
	SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal) AS lines`

// TestHistoryFiles: the SQL under migrations/history and MigrateHistory make the same, and each can be run on
// what the other made.
func TestHistoryFiles(t *testing.T) {
	t.Parallel()

	runFiles := func(t *testing.T, db *sql.DB) {
		names, err := fs.Glob(migrations.History, "history/*.sql")
		contract.Must(t, err)

		if len(names) == 0 {
			t.Fatal("no files are embedded")
		}

		for _, name := range names {
			text, err := fs.ReadFile(migrations.History, name)
			contract.Must(t, err)
			contract.Exec(t, db, string(text))
		}
	}
	migrate := func(t *testing.T, db *sql.DB) {
		contract.Must(t, pglocker.MigrateHistory(t.Context(), db, &pglocker.Config{}))
	}

	var want []string

	for _, way := range []struct {
		name  string
		steps []func(*testing.T, *sql.DB)
	}{
		{"MigrateHistory", []func(*testing.T, *sql.DB){migrate}},
		{"MigrateHistory twice", []func(*testing.T, *sql.DB){migrate, migrate}},
		{"files", []func(*testing.T, *sql.DB){runFiles}},
		{"files twice", []func(*testing.T, *sql.DB){runFiles, runFiles}},
		{"MigrateHistory, files", []func(*testing.T, *sql.DB){migrate, runFiles}},
		{"files, MigrateHistory", []func(*testing.T, *sql.DB){runFiles, migrate}},
	} {
		db := contract.Open(t, "postgres", contract.NewDatabase(t)) // which takes many statements in one text
		contract.MakeTable(t, db, "")

		for _, step := range way.steps {
			step(t, db)
		}

		got := append(contract.Described(t, db, "pglocker.lock_history"), contract.Query[string](t, db, describeHistory))

		switch {
		case want == nil:
			want = got
		case !slices.Equal(got, want):
			t.Errorf("%s makes\n%s\nwant\n%s", way.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}

	// What the files made is in place for MigrateHistory: see TestHistoryInPlace.
	db := contract.Open(t, "postgres", contract.NewDatabase(t))
	contract.MakeTable(t, db, "")
	runFiles(t, db)
	contract.Exec(t, db, "CREATE ROLE pglocker_reader_of_catalogs")
	t.Cleanup(func() {
		_, err := db.ExecContext(context.Background(), "DROP ROLE pglocker_reader_of_catalogs")
		contract.Must(t, err)
	})

	db.SetMaxOpenConns(1)
	contract.Exec(t, db, "SET ROLE pglocker_reader_of_catalogs")
	migrate(t, db)
	contract.Exec(t, db, "RESET ROLE")
}

// TestHistoryAtOnce: forty processes start at once, while locks are in use.
func TestHistoryAtOnce(t *testing.T) {
	t.Parallel()

	databaseURL := contract.NewDatabase(t)
	locker := contract.NewLocker(t, "pgx", databaseURL)

	var (
		start   = make(chan struct{})
		stop    = make(chan struct{})
		errs    = make(chan error, 40)
		done    sync.WaitGroup
		traffic sync.WaitGroup
	)

	traffic.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}

			lock, err := locker.TryLock(t.Context(), "busy", time.Minute)
			if err == nil {
				err = lock.Unlock(t.Context())
			}

			if err != nil {
				t.Error(err)
			}
		}
	})

	for i := range cap(errs) {
		db := contract.Open(t, contract.Drivers[i%len(contract.Drivers)], databaseURL)
		contract.Must(t, db.PingContext(t.Context()))
		done.Go(func() {
			<-start
			errs <- pglocker.MigrateHistory(t.Context(), db, &pglocker.Config{})
		})
	}

	close(start)
	done.Wait()
	close(stop)
	traffic.Wait()
	close(errs)

	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}

	_, err := locker.AcquireLock(t.Context(), "a", time.Minute)
	contract.Must(t, err)

	if got := kindsOf(eventsOf(t, locker, "a", time.Time{})); got != "granted 2" {
		t.Errorf("the history is %s", got)
	}
}

// TestHistoryNames: every name that PostgreSQL allows has a history, if there is room for its name, and each
// table one of its own.
func TestHistoryNames(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		databaseURL := contract.NewDatabase(t)
		db := contract.Open(t, driver, databaseURL)

		for _, name := range []string{
			oddName, `"`, `\`, `'`, ".", " ", "\n", "%s", "$1", "$$", "$body$", "{table}", "{history}", "select", "Ünïcödé",
			strings.Repeat("x", 55), strings.Repeat("🔒", 13) + "abc", "lock_statuses",
		} {
			cfg := &pglocker.Config{Scheme: name, Table: name}
			contract.Must(t, pglocker.MigrateDB(t.Context(), db, cfg))

			for range 2 {
				if err := pglocker.MigrateHistory(t.Context(), db, cfg); err != nil {
					t.Errorf("%q: %v", name, err)
				}
			}

			locker, err := pglocker.New(db, cfg)
			contract.Must(t, err)

			lock, err := locker.TryLock(t.Context(), name, time.Minute)
			if err != nil {
				t.Errorf("%q: %v", name, err)

				continue
			}

			contract.Must(t, lock.Unlock(t.Context()))

			if got := kindsOf(eventsOf(t, locker, name, time.Time{})); got != "granted 2, released 2" {
				t.Errorf("%q: the history is %s", name, got)
			}

			contract.CloseLocker(t, locker)
		}

		long := &pglocker.Config{Table: strings.Repeat("x", 56)}
		if err := pglocker.MigrateHistory(t.Context(), db, long); !errors.Is(err, pglocker.ErrInvalidIdentifier) {
			t.Errorf("%v, want ErrInvalidIdentifier", err)
		}

		// Two tables can't share one, and a table of that name that is none stays as it is.
		inPublic := func(table string) *pglocker.Config {
			cfg := &pglocker.Config{Scheme: pglocker.PublicScheme, Table: table}
			contract.Must(t, pglocker.MigrateDB(t.Context(), db, cfg))

			return cfg
		}

		contract.Must(t, pglocker.MigrateHistory(t.Context(), db, inPublic("lock_statuses")))
		contract.Exec(t, db, "CREATE TABLE other_history (id bigint)")

		for table, text := range map[string]string{"lock": "lock_statuses", "other": "id int8"} {
			err := pglocker.MigrateHistory(t.Context(), db, inPublic(table))
			if !errors.Is(err, pglocker.ErrInvalidTable) || !strings.Contains(err.Error(), text) {
				t.Errorf("%v, want ErrInvalidTable, and %s", err, text)
			}
		}
	})
}

// newRole makes a role that may log in and use the schema, and returns a handle of it.
func newRole(t *testing.T, admin *sql.DB, driver, databaseURL string) (string, *sql.DB) {
	t.Helper()

	role := "pglocker_test_" + strings.ToLower(rand.Text())
	contract.Exec(t, admin, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'secret'", role))
	contract.Exec(t, admin, "GRANT USAGE ON SCHEMA pglocker TO "+role)
	t.Cleanup(func() {
		for _, text := range []string{"DROP OWNED BY " + role, "DROP ROLE " + role} {
			if _, err := admin.ExecContext(context.Background(), text); err != nil {
				t.Error(err)
			}
		}
	})

	u, err := url.Parse(databaseURL)
	contract.Must(t, err)

	u.User = url.UserPassword(role, "secret")

	return role, contract.Open(t, driver, u.String())
}

// TestHistoryRights: a role that may only use locks writes history that it can neither read, nor forge, nor
// delete. MigrateHistory needs no right where all is in place.
func TestHistoryRights(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, driver, databaseURL string, _ bool) {
		ctx := t.Context()
		admin := contract.Open(t, driver, databaseURL)
		role, db := newRole(t, admin, driver, databaseURL)
		denied := func(what string, err error) {
			t.Helper()

			if !errors.Is(err, pglocker.ErrPermissionDenied) {
				t.Errorf("%s: %v, want ErrPermissionDenied", what, err)
			}
		}

		denied("MigrateHistory", pglocker.MigrateHistory(ctx, db, &pglocker.Config{}))
		contract.Must(t, pglocker.MigrateHistory(ctx, admin, &pglocker.Config{}))

		if err := pglocker.MigrateHistory(ctx, db, &pglocker.Config{}); err != nil {
			t.Errorf("MigrateHistory of what is in place: %v", err)
		}

		contract.Exec(t, admin, "GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO "+role)

		locker, err := pglocker.New(db, &pglocker.Config{})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

		lock, err := locker.TryLock(ctx, "a", time.Minute)
		contract.Must(t, err)
		contract.Must(t, lock.Unlock(ctx))

		for _, err := range locker.History(ctx, "a", time.Time{}) {
			denied("History", err)
		}

		_, err = locker.HolderAt(ctx, "a", time.Now())
		denied("HolderAt", err)
		_, err = locker.PruneHistory(ctx, 0)
		denied("PruneHistory", err)

		// With the function it could write to the history what didn't happen.
		contract.Exec(t, admin, "GRANT CREATE ON SCHEMA pglocker TO "+role)
		contract.Exec(t, db, "CREATE TABLE pglocker.forged (LIKE pglocker.lock_statuses)")

		if _, err := db.ExecContext(ctx, `CREATE TRIGGER forge AFTER INSERT ON pglocker.forged
			FOR EACH ROW EXECUTE FUNCTION pglocker.lock_history()`); err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("the role put the function on a table of its own: %v", err)
		}

		if _, err := db.ExecContext(ctx, "INSERT INTO pglocker.lock_history (at, lock_id, kind, token, expires_at) VALUES (now(), 'a', 'forced', 1, now())"); err == nil {
			t.Error("the role wrote to the history")
		}

		contract.Exec(t, admin, "GRANT SELECT ON pglocker.lock_history TO "+role)

		if got := kindsOf(eventsOf(t, locker, "a", time.Time{})); got != "granted 2, released 2" {
			t.Errorf("the history is %s", got)
		}

		_, err = locker.PruneHistory(ctx, 0)
		denied("PruneHistory without DELETE", err)
		contract.Exec(t, admin, "GRANT DELETE ON pglocker.lock_history TO "+role)

		if n, err := locker.PruneHistory(ctx, 0); n != 2 || err != nil {
			t.Errorf("%d events were deleted, %v", n, err)
		}
	})
}

// TestHistoryOfOlderTable: a table of three columns that gets the others has owners in its history once
// MigrateHistory was called again.
func TestHistoryOfOlderTable(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	databaseURL := contract.NewDatabase(t)
	db := contract.Open(t, "pgx", databaseURL)
	contract.MakeTable(t, db, contract.ThreeColumns)
	contract.Must(t, pglocker.MigrateHistory(ctx, db, &pglocker.Config{}))

	locker := contract.NewLocker(t, "pgx", databaseURL) // adds columns
	last := func() pglocker.Event {
		status, err := locker.AcquireLock(ctx, "a", time.Minute)
		contract.Must(t, err)
		contract.Must(t, locker.ReleaseLock(ctx, status))

		events := eventsOf(t, locker, "a", time.Time{})

		return events[len(events)-1]
	}

	if e := last(); e.Kind != pglocker.EventReleased || e.Owner != "" {
		t.Errorf("%+v, want no owner", e)
	}

	contract.Must(t, pglocker.MigrateHistory(ctx, db, &pglocker.Config{}))

	if e := last(); e.Kind != pglocker.EventReleased || e.Owner == "" {
		t.Errorf("%+v, want an owner", e)
	}
}

// TestHistoryOfPartitions: a partitioned table has a history.
func TestHistoryOfPartitions(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	databaseURL := contract.NewDatabase(t)
	db := contract.Open(t, "pgx", databaseURL)
	contract.Exec(t, db, "CREATE SCHEMA pglocker")
	contract.Exec(t, db, "CREATE TABLE pglocker.lock_statuses ("+contract.ThreeColumns+") PARTITION BY HASH (lock_id)")
	contract.Exec(t, db, "CREATE TABLE pglocker.one PARTITION OF pglocker.lock_statuses FOR VALUES WITH (MODULUS 2, REMAINDER 0)")
	contract.Exec(t, db, "CREATE TABLE pglocker.two PARTITION OF pglocker.lock_statuses FOR VALUES WITH (MODULUS 2, REMAINDER 1)")

	locker := contract.NewLocker(t, "pgx", databaseURL)

	for range 2 {
		contract.Must(t, pglocker.MigrateHistory(ctx, db, &pglocker.Config{}))
	}

	for i := range 8 {
		id := fmt.Sprint("lock ", i)
		status, err := locker.AcquireLock(ctx, id, time.Minute)
		contract.Must(t, err)

		_, err = locker.RefreshLock(ctx, status, time.Minute)
		contract.Must(t, err)

		if got := kindsOf(eventsOf(t, locker, id, time.Time{})); got != "granted 2, refreshed 3" {
			t.Errorf("the history is %s", got)
		}
	}
}

// TestHistoryInPlace: where the history is in place MigrateHistory locks nothing. Otherwise it waits for its
// turn, and gives up with its context.
func TestHistoryInPlace(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		db := contract.Open(t, driver, contract.NewDatabase(t))
		contract.MakeTable(t, db, "")

		lock := func(text string) *sql.Tx {
			tx, err := db.BeginTx(t.Context(), nil)
			contract.Must(t, err)
			_, err = tx.ExecContext(t.Context(), text)
			contract.Must(t, err)

			return tx
		}

		// A transaction that has written to the table is in the way of a trigger.
		tx := lock("INSERT INTO pglocker.lock_statuses VALUES ('a', 1, now())")
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)

		err := pglocker.MigrateHistory(ctx, db, &pglocker.Config{})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want context.DeadlineExceeded", err)
		}

		cancel()
		contract.Must(t, tx.Rollback())

		if contract.Query[bool](t, db, "SELECT to_regclass('pglocker.lock_history') IS NOT NULL") {
			t.Error("a part was made")
		}

		contract.Must(t, pglocker.MigrateHistory(t.Context(), db, &pglocker.Config{}))

		tx = lock("LOCK TABLE pglocker.lock_statuses, pglocker.lock_history IN ACCESS EXCLUSIVE MODE")
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)

		if err := pglocker.MigrateHistory(ctx, db, &pglocker.Config{}); err != nil {
			t.Error(err)
		}

		cancel()
		contract.Must(t, tx.Rollback())
	})
}
