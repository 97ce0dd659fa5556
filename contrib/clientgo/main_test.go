package pglockerclientgo_test

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"os"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	pglockerclientgo "github.com/ismurov/pglocker/contrib/clientgo"
	"github.com/ismurov/pglocker/pgtesting"
)

var databases *pgtesting.TestInstance

func TestMain(m *testing.M) {
	if os.Getenv(envName) != "" {
		os.Exit(workerMain())
	}

	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
		MigrateFunc: func(ctx context.Context, _ *url.URL, db *sql.DB) error { return migrate(ctx, db) },
	})
	code := m.Run()
	databases.MustClose()
	os.Exit(code)
}

// migrate makes the table of locks, and that in which leaders write while they lead.
func migrate(ctx context.Context, db *sql.DB) error {
	_, err := db.ExecContext(ctx, `
		CREATE TABLE beats (name TEXT, token BIGINT, at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp())`)

	return errors.Join(err, pglocker.MigrateDB(ctx, db, &pglocker.Config{}))
}

const election = "controller"

// newLock returns a Lock as a process of its own would have it.
func newLock(t *testing.T, url, identity string) *pglockerclientgo.Lock {
	t.Helper()

	lock, err := pglockerclientgo.New(databases.Open(t, url), &pglocker.Config{Owner: identity}, election)
	must(t, err)

	return lock
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

// receive returns a value of the channel. It fails the test after two minutes.
func receive[T any](t *testing.T, what string, from <-chan T) (value T) {
	t.Helper()

	select {
	case value = <-from:
	case <-time.After(2 * time.Minute):
		t.Fatal("in vain for two minutes: ", what)
	}

	return value
}
