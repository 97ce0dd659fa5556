package ui_test

import (
	"context"
	"database/sql"
	"errors"
	"net/http/httptest"
	"net/url"
	"os"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/pgtesting"
	"github.com/ismurov/pglocker/ui"
)

var databases *pgtesting.TestInstance

func TestMain(m *testing.M) {
	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
		MigrateFunc: func(ctx context.Context, _ *url.URL, db *sql.DB) error {
			return errors.Join(pglocker.MigrateDB(ctx, db, &pglocker.Config{}), pglocker.MigrateHistory(ctx, db, &pglocker.Config{}))
		},
	})
	code := m.Run()

	if !testing.Short() {
		databases.MustClose()
	}

	if err := goleak.Find(); err != nil && code == 0 {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		code = 1
	}

	os.Exit(code)
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

func exec(t *testing.T, db *sql.DB, query string, args ...any) {
	t.Helper()

	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%v\n%s", err, query)
	}
}

// newDB is a database with a table of locks and its history.
func newDB(t *testing.T) *sql.DB {
	t.Helper()

	return databases.Open(t, databases.NewDatabase(t).String())
}

// newLocker is a Locker on it, which is closed when the test ends.
func newLocker(t *testing.T, db *sql.DB, owner string) *pglocker.Locker {
	t.Helper()

	locker, err := pglocker.New(db, &pglocker.Config{Owner: owner})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 10*time.Second)
		defer cancel()

		_ = locker.Close(ctx)
	})

	return locker
}

// newHandler is a Handler, which is closed when the test ends.
func newHandler(t *testing.T, locker *pglocker.Locker, options ui.Options) *ui.Handler {
	t.Helper()

	handler, err := ui.New(locker, options)
	must(t, err)
	t.Cleanup(handler.Close)

	return handler
}

// newServer serves a handler under the prefix /locks/.
func newServer(t *testing.T, handler *ui.Handler) *httptest.Server {
	t.Helper()

	server := httptest.NewServer(mounted(handler))
	t.Cleanup(func() {
		handler.Close() // a browser may watch
		server.Close()
	})

	return server
}
