//go:build unix

package pgtesting

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"net/url"
	"strings"
	"testing"
)

func TestInstanceStartsAServer(t *testing.T) {
	skipShort(t)
	tmp := openTempDir(t)
	t.Setenv("TMPDIR", tmp)
	instance, err := NewTestInstance(&TestInstanceConfig{
		DriverName:    "postgres",
		MigrateFunc:   createSongs,
		ServerOptions: []ServerOption{WithSetting("max_connections", "34")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if instance.DriverName() != "postgres" || !strings.HasPrefix(instance.TemplateName(), "pgtesting_template_") {
		t.Errorf("driver %s, template %s", instance.DriverName(), instance.TemplateName())
	}
	var leaked *sql.DB
	t.Run("user", func(t *testing.T) {
		db := instance.Open(t, instance.NewDatabase(t).String())
		leaked = db
		execute(t, db, `INSERT INTO songs VALUES ('second')`)
		if got := query[string](t, db, `SHOW max_connections`); got != "34" {
			t.Errorf("max_connections is %s", got)
		}
		t.Cleanup(func() {
			if err := db.Ping(); err != nil {
				t.Errorf("closed before the test's own clean-up: %v", err)
			}
		})
	})
	if err := leaked.Ping(); err == nil {
		t.Error("the pool is open after the test")
	}
	var tb recorder
	tb.run(t, func() { instance.Open(&tb, strings.Replace(instance.Server().URL(), "/postgres?", "/nosuch?", 1)) })
	if !tb.failed || !strings.Contains(tb.text(), "connecting") {
		t.Errorf("Open of no database: %v, %q", tb.failed, tb.text())
	}

	// Close must do with a server in any state.
	if err := instance.Server().Freeze(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := instance.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wantNothingLeft(t, instance.Server().DataDir())
	wantEmpty(t, tmp)
}

func TestInstanceOnAGivenServer(t *testing.T) {
	s := sharedServer(t)
	instance := MustTestInstance(&TestInstanceConfig{DriverName: "pgx", DatabaseURL: s.URL()})
	if instance.Server() != nil {
		t.Error("a server was started")
	}
	t.Run("user", func(t *testing.T) {
		if got := query[int](t, instance.Open(t, instance.NewDatabase(t).String()), `SELECT 1`); got != 1 {
			t.Errorf("SELECT 1 = %d", got)
		}
	})
	instance.MustClose()
	instance.MustClose()
	if left := databases(t, s.URL()); left != "" {
		t.Errorf("left: %s", left)
	}
}

func TestInstanceFailureLeavesNoServer(t *testing.T) {
	skipShort(t)
	tmp := openTempDir(t)
	t.Setenv("TMPDIR", tmp)
	cause := errors.New("no such luck")
	config := &TestInstanceConfig{
		DriverName:  "pgx",
		MigrateFunc: func(context.Context, *url.URL, *sql.DB) error { return cause },
	}
	if _, err := NewTestInstance(config); !errors.Is(err, cause) {
		t.Errorf("the error is %v, want %v", err, cause)
	}
	wantEmpty(t, tmp)
}

func TestBadInstances(t *testing.T) {
	for text, config := range map[string]*TestInstanceConfig{
		"config is nil":  nil,
		"no DriverName":  {DatabaseURL: "postgres://h/d"},
		"not registered": {DriverName: "nosuchdriver", DatabaseURL: "postgres://h/d"},
		"must be a URL":  {DriverName: "pgx", DatabaseURL: "host=h dbname=d"},
	} {
		if testing.Short() && config != nil && config.DriverName != "" {
			continue // skips before it looks
		}
		_, err := NewTestInstance(config)
		wantErrorText(t, err, text)
	}
	defer func() {
		err, _ := recover().(error)
		wantErrorText(t, err, "no databases for tests", "config is nil")
	}()
	MustTestInstance(nil)
}

func TestSkipping(t *testing.T) {
	for name, c := range map[string]struct {
		short  string
		config TestInstanceConfig
		reason string
	}{
		"short":     {"true", TestInstanceConfig{DriverName: "pgx"}, "-short"},
		"SkipTests": {"false", TestInstanceConfig{DriverName: "pgx", SkipTests: true}, "SkipTests"},
	} {
		t.Run(name, func(t *testing.T) {
			short := flag.Lookup("test.short").Value
			before := short.String()
			if err := short.Set(c.short); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = short.Set(before) }()

			instance, err := NewTestInstance(&c.config)
			if err != nil {
				t.Fatal(err)
			}
			if instance.Server() != nil || instance.TemplateName() != "" {
				t.Error("something was started")
			}
			for call, f := range map[string]func(testing.TB){
				"NewDatabase":            func(tb testing.TB) { instance.NewDatabase(tb) },
				"NewDatabaseWithCleanup": func(tb testing.TB) { instance.NewDatabaseWithCleanup(tb, false) },
				"Open":                   func(tb testing.TB) { instance.Open(tb, "postgres://h/d") },
			} {
				var tb recorder
				tb.run(t, func() { f(&tb) })
				if !tb.skipped || !strings.Contains(tb.text(), c.reason) {
					t.Errorf("%s: skipped %v, %q", call, tb.skipped, tb.text())
				}
			}
			instance.MustClose()
		})
	}
}

// In TestMain nobody has parsed the command line yet.
func TestShortIsSeenBeforeFlagsAreParsed(t *testing.T) {
	running := startChild(t, childSkips, t.TempDir(), "-test.short")
	r := running.report(t)
	if err := running.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(r.Text, "-short") {
		t.Errorf("the reason is %q", r.Text)
	}
}
