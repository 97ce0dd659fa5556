//go:build unix

package pgtesting

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// createSongs is the migration of most tests here.
func createSongs(ctx context.Context, _ *url.URL, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `CREATE TABLE songs (title text); INSERT INTO songs VALUES ('first')`)
	return err
}

func newFactory(t *testing.T, driver, connURL string, migrate MigrateFunc) *TestDatabaseFactory {
	t.Helper()
	f, err := NewTestDatabaseFactory(t.Context(), driver, connURL, migrate)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// databases returns the names of the server's databases, except those that every
// server has.
func databases(t *testing.T, connURL string) string {
	t.Helper()
	db := open(t, "pgx", connURL)
	return query[string](t, db, `
		SELECT coalesce(string_agg(datname, ' ' ORDER BY datname), '')
		  FROM pg_database
		 WHERE datname NOT IN ('postgres', 'template0', 'template1')`)
}

func TestClonesHaveWhatTheTemplateHas(t *testing.T) {
	s := sharedServer(t)
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			migrations := 0
			f := newFactory(t, driver, s.URL(), func(ctx context.Context, u *url.URL, db *sql.DB) error {
				migrations++
				var name string
				if err := db.QueryRowContext(ctx, `SELECT current_database()`).Scan(&name); err != nil {
					return err
				}
				if u.Path != name {
					t.Errorf("migrating %s with the path %q", name, u.Path)
				}
				return createSongs(ctx, u, db)
			})
			if f.DriverName() != driver {
				t.Errorf("DriverName() = %s", f.DriverName())
			}
			first, second := f.NewDatabase(t), f.NewDatabase(t)
			if first.Path == second.Path {
				t.Fatalf("two databases of the name %s", first.Path)
			}
			for _, u := range []*url.URL{first, second} {
				// With whatever driver the other side has.
				for _, opener := range drivers {
					db := open(t, opener, u.String())
					if got := query[string](t, db, `SELECT current_database()`); got != u.Path {
						t.Errorf("%s is connected to %q, want %q", opener, got, u.Path)
					}
				}
			}
			a, b := open(t, driver, first.String()), open(t, driver, second.String())
			execute(t, a, `INSERT INTO songs VALUES ('second')`)
			if got := query[int](t, a, `SELECT count(*) FROM songs`); got != 2 {
				t.Errorf("%d rows, want 2", got)
			}
			if got := query[int](t, b, `SELECT count(*) FROM songs`); got != 1 {
				t.Errorf("%d rows in the other database, want 1", got)
			}
			if migrations != 1 {
				t.Errorf("migrated %d times", migrations)
			}
		})
	}
}

func TestTheURLOfAClone(t *testing.T) {
	s := sharedServer(t)
	connURL := strings.Replace(s.URL(), "?", "?application_name=some%20thing&", 1)
	f := newFactory(t, "pgx", connURL, nil)
	u := f.NewDatabase(t)
	if !strings.HasPrefix(u.Path, "pgtesting_") || strings.Contains(u.Path, "/") {
		t.Errorf("Path = %q", u.Path)
	}
	if want := strings.Replace(connURL, "/postgres?", "/"+u.Path+"?", 1); u.String() != want {
		t.Errorf("String() = %s, want %s", u, want)
	}
	for _, driver := range drivers {
		db := open(t, driver, u.String())
		if got := query[string](t, db, `SHOW application_name`); got != "some thing" {
			t.Errorf("%s: application_name is %q", driver, got)
		}
	}
}

func TestWithDatabaseLeavesNoOtherName(t *testing.T) {
	u, err := parseURL("postgres://a:b%2Fc@h:1/old%2Fname?dbname=x&application_name=a%20b&sslmode=disable&database=y")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := withDatabase(u, "new").String(), "postgres://a:b%2Fc@h:1/new?application_name=a%20b&sslmode=disable"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if u.Path != "/old/name" {
		t.Errorf("the original is changed: %s", u)
	}
}

func TestAFactoryOnASocket(t *testing.T) {
	sockets := openTempDir(t)
	if err := os.Chmod(sockets, 0o777); err != nil {
		t.Fatal(err)
	}
	s := startServer(t, WithSetting("unix_socket_directories", sockets), WithSetting("listen_addresses", ""))
	connURL := fmt.Sprintf("postgres://postgres:postgres@/postgres?host=%s&port=%d&sslmode=disable", sockets, s.Port())
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			u := newFactory(t, driver, connURL, createSongs).NewDatabase(t)
			if want := strings.Replace(connURL, "@/postgres?", "@/"+u.Path+"?", 1); u.String() != want {
				t.Errorf("String() = %s, want %s", u, want)
			}
			for _, opener := range drivers {
				if got := query[string](t, open(t, opener, u.String()), `SELECT current_database()`); got != u.Path {
					t.Errorf("%s is connected to %q, want %q", opener, got, u.Path)
				}
			}
		})
	}
}

func TestAFactorySurvivesARestart(t *testing.T) {
	s := abusedServer(t)
	for _, driver := range drivers {
		f := newFactory(t, driver, s.URL(), createSongs)
		f.NewDatabase(t)
		if err := s.Restart(t.Context(), ImmediateShutdown); err != nil {
			t.Fatal(err)
		}
		u := f.NewDatabase(t)
		if got := query[int](t, open(t, driver, u.String()), `SELECT count(*) FROM songs`); got != 1 {
			t.Errorf("%d rows, want 1", got)
		}
		admin := open(t, driver, s.URL())

		// A backend ends a moment after its client has left.
		eventually(t, driver+": no connection is kept", func() bool {
			return query[int](t, admin, `
				SELECT count(*) FROM pg_stat_activity
				 WHERE usename IS NOT NULL AND datname = 'postgres' AND pid <> pg_backend_pid()`) == 0
		})
	}
}

func TestCleanupDropsClonesInUse(t *testing.T) {
	s := sharedServer(t)
	f := newFactory(t, "pgx", s.URL(), createSongs)
	var name string
	var leaked *sql.DB
	var tx *sql.Tx
	t.Run("user", func(t *testing.T) {
		u := f.NewDatabase(t)
		name = u.Path
		var err error
		if leaked, err = sql.Open("postgres", u.String()); err != nil {
			t.Fatal(err)
		}
		// One in a transaction, one idle.
		if tx, err = leaked.BeginTx(context.Background(), nil); err != nil {
			t.Fatal(err)
		}
		if _, err := tx.Exec(`LOCK TABLE songs`); err != nil {
			t.Fatal(err)
		}
		if err := leaked.Ping(); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(databases(t, s.URL()), name) {
			t.Errorf("%s is not there during the test", name)
		}
	})
	defer leaked.Close()
	defer func() { _ = tx.Rollback() }()
	if strings.Contains(databases(t, s.URL()), name) {
		t.Errorf("%s is there after the test", name)
	}
}

func TestWithoutCleanupClonesStay(t *testing.T) {
	s := sharedServer(t)
	f := newFactory(t, "postgres", s.URL(), nil)
	var name string
	t.Run("user", func(t *testing.T) { name = f.NewDatabaseWithCleanup(t, false).Path })
	if !strings.Contains(databases(t, s.URL()), name) {
		t.Errorf("%s is gone", name)
	}
	execute(t, open(t, "pgx", s.URL()), `DROP DATABASE "`+name+`"`)
}

func TestFortyDatabasesAtOnce(t *testing.T) {
	s := sharedServer(t)
	// As from several test processes: each factory has connections of its own.
	factories := []*TestDatabaseFactory{
		newFactory(t, "pgx", s.URL(), createSongs),
		newFactory(t, "postgres", s.URL(), createSongs),
	}
	t.Run("all", func(t *testing.T) {
		var names sync.Map
		var group sync.WaitGroup
		for i := range 40 {
			group.Go(func() {
				f := factories[i%len(factories)]
				u := f.NewDatabase(t)
				names.Store(u.Path, true)
				db := open(t, f.DriverName(), u.String())
				if got := query[int](t, db, `SELECT count(*) FROM songs`); got != 1 {
					t.Errorf("%d rows, want 1", got)
				}
			})
		}
		group.Wait()
		count := 0
		names.Range(func(any, any) bool { count++; return true })
		if count != 40 {
			t.Errorf("%d databases, want 40", count)
		}
	})
	for name := range strings.FieldsSeq(databases(t, s.URL())) {
		if name != factories[0].TemplateName() && name != factories[1].TemplateName() {
			t.Errorf("%s is left", name)
		}
	}
}

func TestFactoriesMadeAtOnce(t *testing.T) {
	s := sharedServer(t)
	var group sync.WaitGroup
	for i := range 6 {
		group.Go(func() {
			f, err := NewTestDatabaseFactory(t.Context(), drivers[i%2], s.URL(), createSongs)
			if err != nil {
				t.Error(err)
				return
			}
			if err := f.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if left := databases(t, s.URL()); left != "" {
		t.Errorf("left: %s", left)
	}
}

func TestTheTemplateIsClosedAndDropped(t *testing.T) {
	s := sharedServer(t)
	f := newFactory(t, "pgx", s.URL(), nil)
	db := open(t, "pgx", s.URL())
	if got := query[string](t, db, `SELECT datistemplate::text || ' ' || datallowconn::text FROM pg_database WHERE datname = $1`,
		f.TemplateName()); got != "true false" {
		t.Errorf("is template, allows connections: %s", got)
	}
	template := withDatabase(f.url, f.TemplateName())
	wantErrorText(t, open(t, "postgres", template.String()).PingContext(t.Context()), "not currently accepting connections")
	for range 2 {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if left := databases(t, s.URL()); strings.Contains(left, f.TemplateName()) {
		t.Errorf("left: %s", left)
	}
	var tb recorder
	tb.run(t, func() { f.NewDatabase(&tb) })
	if !strings.Contains(tb.text(), "closed") {
		t.Errorf("NewDatabase after Close: %q", tb.text())
	}
}

func TestAMigrationMayForgetItsConnections(t *testing.T) {
	s := sharedServer(t)
	var forgotten *sql.DB
	f := newFactory(t, "pgx", s.URL(), func(ctx context.Context, u *url.URL, _ *sql.DB) error {
		var err error
		if forgotten, err = sql.Open("postgres", u.String()); err != nil {
			return err
		}
		return forgotten.PingContext(ctx)
	})
	defer forgotten.Close()
	f.NewDatabase(t)
}

func TestAFailedMigrationLeavesNoTemplate(t *testing.T) {
	s := sharedServer(t)
	cause := errors.New("no such luck")
	for _, driver := range drivers {
		_, err := NewTestDatabaseFactory(t.Context(), driver, s.URL(), func(ctx context.Context, u *url.URL, db *sql.DB) error {
			return errors.Join(createSongs(ctx, u, db), cause)
		})
		if !errors.Is(err, cause) {
			t.Errorf("the error is %v, want %v", err, cause)
		}

		ctx, cancel := context.WithCancel(t.Context())
		_, err = NewTestDatabaseFactory(ctx, driver, s.URL(), func(ctx context.Context, _ *url.URL, _ *sql.DB) error {
			cancel()
			return ctx.Err()
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v, want %v", err, context.Canceled)
		}

		func() {
			defer func() {
				if r := recover(); r != "oh" {
					t.Errorf("recovered %v", r)
				}
			}()
			_, _ = NewTestDatabaseFactory(t.Context(), driver, s.URL(), func(context.Context, *url.URL, *sql.DB) error { panic("oh") })
		}()
	}
	if left := databases(t, s.URL()); left != "" {
		t.Errorf("left: %s", left)
	}
}

func TestAFactoryNeedsNoSuperuser(t *testing.T) {
	s := sharedServer(t)
	admin := open(t, "pgx", s.URL())
	execute(t, admin, `CREATE ROLE builder LOGIN CREATEDB PASSWORD 'b/u?i'`)
	t.Cleanup(func() { _, _ = admin.Exec(`DROP ROLE builder`) })
	connURL := strings.Replace(s.URL(), "postgres:postgres@", "builder:b%2Fu%3Fi@", 1)
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			f := newFactory(t, driver, connURL, createSongs)
			db := open(t, driver, f.NewDatabase(t).String())
			if got := query[string](t, db, `SELECT current_user`); got != "builder" {
				t.Errorf("connected as %s", got)
			}
		})
	}
}

func TestBadFactories(t *testing.T) {
	ctx := t.Context()
	_, err := NewTestDatabaseFactory(ctx, "nosuchdriver", "postgres://h/d", nil)
	if !errors.Is(err, ErrDriverNotRegistered) {
		t.Errorf("the error is %v, want %v", err, ErrDriverNotRegistered)
	}
	wantErrorText(t, err, `"nosuchdriver"`)

	for name, connURL := range map[string]string{
		"empty":        "",
		"pairs":        "host=localhost user=postgres password=secret",
		"scheme":       "mysql://user:secret@localhost/d",
		"no such host": "postgres://user:secret@/d?host=/nonexistent",
		"opaque":       "postgres:d",
		"not a URL":    "postgres://user:secret@local host/d",
		"bad port":     "postgres://user:secret@localhost:port/d",
		"nobody home":  "postgres://user:secret@127.0.0.1:1/d?sslmode=disable",
	} {
		for _, driver := range drivers {
			f, err := NewTestDatabaseFactory(ctx, driver, connURL, nil)
			if err == nil {
				t.Errorf("%s: no error", name)
				_ = f.Close()
				continue
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: the password is in the error: %v", name, err)
			}
		}
	}
}

func TestFailuresFailTheTest(t *testing.T) {
	s := abusedServer(t)
	f, err := NewTestDatabaseFactory(t.Context(), "pgx", s.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var tb recorder
	tb.run(t, func() {
		f.NewDatabase(&tb)
		if err := s.Kill(); err != nil {
			t.Error(err)
		}
	})
	if !tb.failed || !strings.Contains(tb.text(), "dropping a database") {
		t.Errorf("a database that could not be dropped: %v, %q", tb.failed, tb.text())
	}
	tb = recorder{}
	tb.run(t, func() {
		f.NewDatabase(&tb)
		t.Error("NewDatabase returns")
	})
	if !tb.failed || !strings.Contains(tb.text(), "copying the template database") {
		t.Errorf("a database that could not be made: %v, %q", tb.failed, tb.text())
	}
	if err := f.Close(); err == nil {
		t.Error("Close with the server down: no error")
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	db := open(t, "pgx", s.URL())
	for name := range strings.FieldsSeq(databases(t, s.URL())) {
		execute(t, db, `ALTER DATABASE "`+name+`" IS_TEMPLATE false`)
		execute(t, db, `DROP DATABASE "`+name+`"`)
	}
}

// recorder is a test that may fail or be skipped without anybody's harm.
type recorder struct {
	testing.TB
	lines    []string
	cleanups []func()
	failed   bool
	skipped  bool
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) text() string     { return strings.Join(r.lines, "\n") }
func (r *recorder) note(args ...any) {
	r.lines = append(r.lines, strings.TrimSpace(fmt.Sprintln(args...)))
}
func (r *recorder) Error(args ...any) { r.note(args...); r.failed = true }
func (r *recorder) Errorf(format string, args ...any) {
	r.note(fmt.Sprintf(format, args...))
	r.failed = true
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Skip(args ...any) {
	r.note(args...)
	r.skipped = true
	runtime.Goexit()
}

// run calls f as a test's goroutine, and what f has given to Cleanup after it.
func (r *recorder) run(t *testing.T, f func()) {
	t.Helper()
	r.TB = t
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	<-done
	for _, cleanup := range r.cleanups {
		cleanup()
	}
}
