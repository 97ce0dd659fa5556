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

// TestInstanceConfig says what databases the tests get.
type TestInstanceConfig struct {
	// DriverName is the driver's name in database/sql: "pgx", or "postgres" for
	// lib/pq. The tests import it.
	DriverName string
	// DatabaseURL is a URL of an existing database on the server to use, see
	// NewTestDatabaseFactory. Empty: a throwaway server is started, see StartServer.
	DatabaseURL string
	// MigrateFunc fills the template database, once. It may be nil.
	MigrateFunc func(ctx context.Context, u *url.URL, db *sql.DB) error
	// SkipTests makes every test that asks for a database skip itself, as -short
	// does.
	SkipTests bool
	// ServerOptions are for the throwaway server. The progress of a download goes
	// to the standard error unless one of them says otherwise.
	ServerOptions []ServerOption
}

// TestInstance gives each test a database of its own. It is made for TestMain,
// and its methods may be called from several goroutines.
type TestInstance struct {
	driverName string
	skipReason string // not empty: there is neither server nor factory
	server     *Server
	factory    *TestDatabaseFactory
}

// NewTestInstance starts a server if cfg names none and makes a template database
// on it. With SkipTests, or when the tests run with -short, it does neither, and
// its methods skip the tests that call them; it parses the command line if nobody
// has.
//
// Errors are those of StartServer and NewTestDatabaseFactory, and nothing is left
// behind with them. What it makes is there until Close.
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
			_ = t.server.Stop() // the watchdog cares for what fails here
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

// Close stops the throwaway server, with all databases, or drops the template
// database on the server that was given. Close after the tests: on a given server
// their databases could not be dropped any more. Another call does nothing and
// returns nil.
func (t *TestInstance) Close() error {
	switch {
	case t.skipReason != "":
		return nil
	case t.server != nil:
		// What the factory would drop is removed anyway, even if the server is down.
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

// Server returns the throwaway server, nil if there is none.
func (t *TestInstance) Server() *Server { return t.server }

// DriverName returns the driver's name in database/sql.
func (t *TestInstance) DriverName() string { return t.driverName }

// TemplateName returns the name of the template database, "" if tests are
// skipped.
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

// NewDatabaseWithCleanup is the factory's, see there; tb is skipped if tests are.
func (t *TestInstance) NewDatabaseWithCleanup(tb testing.TB, cleanup bool) *url.URL {
	tb.Helper()
	t.skip(tb)
	return t.factory.NewDatabaseWithCleanup(tb, cleanup)
}

// Open returns a pool of connections to a database, NewDatabase's for example,
// that has one connection open. It is closed when tb and its subtests have ended.
// tb fails, by FailNow, if the database cannot be reached, and is skipped if tests
// are.
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
