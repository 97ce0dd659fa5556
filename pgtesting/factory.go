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

// MigrateFunc fills a new database with a schema and with rows that all tests share. u is
// the database's URL, in the form that NewDatabaseWithCleanup describes. db is a pool of
// connections to it, which is closed when MigrateFunc returns.
type MigrateFunc = func(ctx context.Context, u *url.URL, db *sql.DB) error

// ErrDriverNotRegistered is returned for a driver name that database/sql does not know. The
// calling program must import the driver.
var ErrDriverNotRegistered = errors.New("pgtesting: the SQL driver is not registered (is its import missing?)")

// TestDatabaseFactory creates copies of one template database. Its methods are safe for
// concurrent use.
type TestDatabaseFactory struct {
	driverName string
	url        *url.URL // of the database that statements are sent to
	db         *sql.DB
	server     admin
	template   string

	mu     sync.Mutex
	closed bool // by Close, under mu
}

// NewTestDatabaseFactory creates a template database, runs migrateFunc on it, unless that is
// nil, and closes it to connections.
//
// driverName is the driver's name in database/sql: "pgx", or "postgres" for lib/pq. connURL
// is the URL of an existing database on a server of version 12 or later,
// postgres://user:password@host:port/database, or postgres:///database?host=/folder for a
// Unix socket. Its user must be allowed to create databases.
//
// If migrateFunc fails or panics, if the server fails or if ctx ends, the template database
// is dropped. The error wraps migrateFunc's, the server's or ctx's. It is
// ErrDriverNotRegistered for an unknown driver. Cancelling ctx has no effect after
// NewTestDatabaseFactory has returned.
//
// A killed process leaves its databases on the server. Their names are pgtesting_ or
// pgtesting_template_ and 16 hexadecimal digits.
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
	// More copies at a time would not be faster, and would take connections from the tests.
	db.SetMaxOpenConns(4)
	// Tests may restart the server, or count its connections.
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

const cleanUpTimeout = 30 * time.Second

// cleanUpContext is for dropping a database when the caller's context may have ended.
func cleanUpContext() (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(context.Background(), cleanUpTimeout,
		fmt.Errorf("no success in %v", cleanUpTimeout))
}

func (f *TestDatabaseFactory) makeTemplate(ctx context.Context, migrateFunc MigrateFunc) (err error) {
	ready := false
	defer func() {
		if ready {
			return
		}
		// Also if CREATE DATABASE failed: its reply may have been lost.
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

// Close drops the template database. Call it when all tests have ended: it closes the
// connections that drop the copies. A second call returns nil.
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

// NewDatabaseWithCleanup copies the template database and returns the copy's URL. Its String
// is what sql.Open takes. Its Path is the bare name of the database, without a slash.
//
// With cleanup, the copy is dropped when tb and its subtests have ended, and connections to
// it are cut. Otherwise it stays. If copying fails, tb fails with Fatal. If dropping fails, tb
// fails with Error.
func (f *TestDatabaseFactory) NewDatabaseWithCleanup(tb testing.TB, cleanup bool) *url.URL {
	tb.Helper()
	name := randomName("pgtesting_")
	if cleanup {
		// Before the copy is made: the reply may be lost.
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
