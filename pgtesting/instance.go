package pgtesting

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"testing"
)

// TestInstanceConfig is the configuration of a TestInstance.
type TestInstanceConfig struct {
	// DriverName is the driver's name in database/sql: "pgx", or "postgres" for lib/pq. The
	// tests must import the driver.
	DriverName string
	// DatabaseURL is the connURL of NewTestDatabaseFactory. If it is empty, StartServer
	// starts a server.
	DatabaseURL string
	// MigrateFunc fills the template database. It is called once, and may be nil.
	MigrateFunc func(ctx context.Context, u *url.URL, db *sql.DB) error
	// SkipTests skips every test that takes a database, as -short does.
	SkipTests bool
	// ServerOptions are those of StartServer. The progress of a download goes to the
	// standard error without WithProgress.
	ServerOptions []ServerOption
}

// TestInstance gives each test a database of its own. TestMain makes it. Its methods are safe
// for concurrent use.
type TestInstance struct {
	driverName string
	skipReason string // not empty: there is neither server nor factory
	server     *Server
	factory    *TestDatabaseFactory
}

// NewTestInstance starts a server, unless cfg names one, and creates a template database on
// it. With SkipTests or -short it does neither, and the methods of the TestInstance skip the
// tests that call them. It parses the command line if that was not done before.
//
// It returns the errors of StartServer and NewTestDatabaseFactory, and then leaves nothing
// behind. The caller must call Close.
func NewTestInstance(cfg *TestInstanceConfig) (*TestInstance, error) {
	if cfg == nil {
		return nil, errors.New("pgtesting: the config is nil")
	}
	if cfg.DriverName == "" {
		return nil, errors.New("pgtesting: the config has no DriverName")
	}
	t := &TestInstance{driverName: cfg.DriverName, skipReason: skipReason(cfg)}
	if t.skipReason != "" {
		return t, nil
	}
	ctx := context.Background()
	connURL := cfg.DatabaseURL
	if connURL == "" {
		options := append([]ServerOption{WithProgress(os.Stderr)}, cfg.ServerOptions...)
		var err error
		if t.server, err = StartServer(ctx, options...); err != nil {
			return nil, err
		}
		connURL = t.server.URL()
	}
	ready := false
	defer func() {
		if !ready && t.server != nil {
			_ = t.server.Stop() // the watchdog does what fails here
		}
	}()
	var err error
	t.factory, err = NewTestDatabaseFactory(ctx, cfg.DriverName, connURL, cfg.MigrateFunc)
	if err != nil {
		return nil, err
	}
	ready = true
	return t, nil
}

func skipReason(cfg *TestInstanceConfig) string {
	if cfg.SkipTests {
		return "pgtesting: the test needs a database, and SkipTests is set"
	}
	if !testing.Testing() {
		return ""
	}
	if !flag.Parsed() {
		flag.Parse()
	}
	if testing.Short() {
		return "pgtesting: the test needs a database, and -short is set"
	}
	return ""
}

// MustTestInstance is NewTestInstance that panics with its error.
func MustTestInstance(cfg *TestInstanceConfig) *TestInstance {
	t, err := NewTestInstance(cfg)
	if err != nil {
		panic(fmt.Errorf("pgtesting: no databases for tests: %w", err))
	}
	return t
}

// Close stops the server that NewTestInstance started, or drops the template database on a
// given server. Call it when all tests have ended: afterwards their databases can't be
// dropped. A second call returns nil.
func (t *TestInstance) Close() error {
	switch {
	case t.skipReason != "":
		return nil
	case t.server != nil:
		// Stop removes all databases, even if the server is down.
		return errors.Join(t.factory.db.Close(), t.server.Stop())
	default:
		return t.factory.Close()
	}
}

// MustClose is Close that panics with its error.
func (t *TestInstance) MustClose() {
	if err := t.Close(); err != nil {
		panic(fmt.Errorf("pgtesting: closing: %w", err))
	}
}

// Server returns the server that NewTestInstance started, nil if there is none.
func (t *TestInstance) Server() *Server { return t.server }

// DriverName returns the driver's name in database/sql.
func (t *TestInstance) DriverName() string { return t.driverName }

// TemplateName returns the name of the template database, "" if tests are skipped.
func (t *TestInstance) TemplateName() string {
	if t.skipReason != "" {
		return ""
	}
	return t.factory.TemplateName()
}

// NewDatabase is NewDatabaseWithCleanup(tb, true).
func (t *TestInstance) NewDatabase(tb testing.TB) *url.URL {
	tb.Helper()
	return t.NewDatabaseWithCleanup(tb, true)
}

// NewDatabaseWithCleanup is that of TestDatabaseFactory. It skips tb if tests are skipped.
func (t *TestInstance) NewDatabaseWithCleanup(tb testing.TB, cleanup bool) *url.URL {
	tb.Helper()
	t.skip(tb)
	return t.factory.NewDatabaseWithCleanup(tb, cleanup)
}

// Open returns a pool of connections to the database of url, with one connection open. It is
// closed when tb and its subtests have ended. If the database can't be reached, tb fails with
// Fatal. Open skips tb if tests are skipped.
func (t *TestInstance) Open(tb testing.TB, url string) *sql.DB {
	tb.Helper()
	t.skip(tb)
	db, err := sql.Open(t.driverName, url)
	if err != nil {
		tb.Fatalf("pgtesting: opening a database: %v", err)
	}
	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("pgtesting: closing a database: %v", err)
		}
	})
	if err := db.PingContext(tb.Context()); err != nil {
		tb.Fatalf("pgtesting: connecting to a database: %v", err)
	}
	return db
}

func (t *TestInstance) skip(tb testing.TB) {
	tb.Helper()
	if t.skipReason != "" {
		tb.Skip(t.skipReason)
	}
}
