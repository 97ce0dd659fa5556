package pgtesting

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"
)

// MigrateFunc fills a new database: with a schema, with rows that all tests
// share. It gets the database's URL, in the form that NewDatabase describes, and
// an open pool of connections to it, which is closed afterwards.
type MigrateFunc = func(ctx context.Context, u *url.URL, db *sql.DB) error

// ErrDriverNotRegistered is returned for the name of a driver that database/sql
// does not know. The program that uses the package imports the driver.
var ErrDriverNotRegistered = errors.New("pgtesting: the SQL driver is not registered (is its import missing?)")

// TestDatabaseFactory makes databases that are copies of one template database.
// Its methods may be called from several goroutines.
type TestDatabaseFactory struct {
	driverName string
	url        *url.URL // of the database that statements are sent to
	db         *sql.DB
	server     admin
	template   string

	mu     sync.Mutex
	closed bool // by Close, under mu
}

// NewTestDatabaseFactory creates a template database on the server of connURL,
// runs migrateFunc on it, unless that is nil, and closes it to connections, so
// that it can be copied. connURL is a URL of an existing database,
// postgres://user:password@host:port/database, or postgres:///database?host=/folder
// for a Unix socket; its user must be allowed to create databases. PostgreSQL 12 and
// later will do. driverName is the driver's name in database/sql: "pgx", or
// "postgres" for lib/pq.
//
// If anything fails, also when ctx is cancelled or migrateFunc panics, the
// template database is dropped again and the error of migrateFunc, ctx or the
// server is returned, wrapped; ErrDriverNotRegistered for an unknown driver.
// Cancelling ctx means nothing after NewTestDatabaseFactory has returned.
//
// Databases that a killed process leaves on a server can be told by their names:
// pgtesting_ or pgtesting_template_ and 16 hexadecimal digits.
func NewTestDatabaseFactory(ctx context.Context, driverName, connURL string, migrateFunc MigrateFunc) (*TestDatabaseFactory, error) {
	if !slices.Contains(sql.Drivers(), driverName) {
		return nil, fmt.Errorf("%w: %q", ErrDriverNotRegistered, driverName)
	}
	u, err := parseURL(connURL)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open(driverName, u.String())
	if err != nil {
		return nil, fmt.Errorf("pgtesting: %w", err)
	}
	// Copying is work for the server: more at a time would not be faster, and would
	// take connections from the tests.
	db.SetMaxOpenConns(4)
	// Tests may restart the server, or look at who is connected.
	db.SetMaxIdleConns(-1)

	f := &TestDatabaseFactory{
		driverName: driverName,
		url:        u,
		db:         db,
		template:   randomName("pgtesting_template_"),
	}
	ready := false
	defer func() {
		if !ready {
			_ = f.db.Close()
		}
	}()
	if f.server, err = newAdmin(ctx, db); err != nil {
		return nil, err
	}
	if err := f.makeTemplate(ctx, migrateFunc); err != nil {
		return nil, err
	}
	ready = true
	return f, nil
}

// cleanUpPatience bounds the dropping of one database.
const cleanUpPatience = 30 * time.Second

// cleanUpContext is for what must be done also when a test's or a caller's
// context has ended.
func cleanUpContext() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), cleanUpPatience,
		fmt.Errorf("no success in %v", cleanUpPatience))
}

func (f *TestDatabaseFactory) makeTemplate(ctx context.Context, migrateFunc MigrateFunc) (err error) {
	ready := false
	defer func() {
		if ready {
			return
		}
		// Also when CREATE DATABASE failed: its reply may have been lost.
		ctx, cancel := cleanUpContext()
		defer cancel()
		if dropErr := f.server.drop(ctx, f.template); dropErr != nil {
			err = errors.Join(err, dropErr)
		}
	}()
	if err := f.server.create(ctx, f.template, ""); err != nil {
		return fmt.Errorf("pgtesting: creating the template database: %w", err)
	}
	if migrateFunc != nil {
		if err := f.migrate(ctx, migrateFunc); err != nil {
			return fmt.Errorf("pgtesting: migrating the template database: %w", err)
		}
	}
	if err := f.server.seal(ctx, f.template); err != nil {
		return fmt.Errorf("pgtesting: closing the template database to connections: %w", err)
	}
	ready = true
	return nil
}

func (f *TestDatabaseFactory) migrate(ctx context.Context, migrateFunc MigrateFunc) error {
	u := withDatabase(f.url, f.template)
	db, err := sql.Open(f.driverName, u.String())
	if err != nil {
		return err
	}
	defer db.Close()
	return migrateFunc(ctx, u, db)
}

// DriverName returns the driver's name in database/sql.
func (f *TestDatabaseFactory) DriverName() string { return f.driverName }

// TemplateName returns the name of the template database.
func (f *TestDatabaseFactory) TemplateName() string { return f.template }

// Close drops the template database. Copies of it stay until their tests end,
// but cannot be dropped any more: close after the tests, as TestMain does.
// Another call does nothing and returns nil.
func (f *TestDatabaseFactory) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	f.closed = true
	ctx, cancel := cleanUpContext()
	defer cancel()
	err := f.server.drop(ctx, f.template)
	return errors.Join(err, f.db.Close())
}

// NewDatabase is NewDatabaseWithCleanup(tb, true).
func (f *TestDatabaseFactory) NewDatabase(tb testing.TB) *url.URL {
	tb.Helper()
	return f.NewDatabaseWithCleanup(tb, true)
}

// NewDatabaseWithCleanup copies the template database under a random name and
// returns the copy's URL: connURL with the bare name of the database as its
// Path, without a slash. Its String is what sql.Open takes.
//
// With cleanup, the copy is dropped when tb and its subtests have ended, and
// connections to it that are still open are cut; without, it stays. If anything
// fails tb fails, by FailNow for the copying and by Error for the dropping.
func (f *TestDatabaseFactory) NewDatabaseWithCleanup(tb testing.TB, cleanup bool) *url.URL {
	tb.Helper()
	name := randomName("pgtesting_")
	if cleanup {
		// Before the copying, whose reply may be lost.
		tb.Cleanup(func() {
			ctx, cancel := cleanUpContext()
			defer cancel()
			if err := f.server.drop(ctx, name); err != nil {
				tb.Errorf("pgtesting: dropping a database: %v", err)
			}
		})
	}
	if err := f.server.create(tb.Context(), name, f.template); err != nil {
		tb.Fatalf("pgtesting: copying the template database: %v", err)
	}
	return withDatabase(f.url, name)
}
