package pglockergocron_test

import (
	"context"
	"database/sql"
	"flag"
	"net/url"
	"os"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/pgtesting"
)

var databases *pgtesting.TestInstance

func TestMain(m *testing.M) {
	if os.Getenv(envWorker) != "" {
		os.Exit(workerMain())
	}

	flag.Parse()

	_ = flag.Set("test.parallel", "8") // most of them wait for ticks

	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
		MigrateFunc: func(ctx context.Context, _ *url.URL, db *sql.DB) error { return migrate(ctx, db) },
	})
	code := m.Run()
	databases.MustClose()
	os.Exit(code)
}

// newLocker returns a Locker on the database of a URL, as a process of its own would have it.
func newLocker(t *testing.T, url string) *pglocker.Locker {
	t.Helper()

	locker, err := pglocker.New(databases.Open(t, url), &pglocker.Config{})
	must(t, err)
	t.Cleanup(func() { must(t, locker.Close(context.Background())) })

	return locker
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

// receive returns a value of the channel. It fails the test after a minute.
func receive[T any](t *testing.T, what string, from <-chan T) (value T) {
	t.Helper()

	select {
	case value = <-from:
	case <-time.After(time.Minute):
		t.Fatal("in vain for a minute: ", what)
	}

	return value
}
