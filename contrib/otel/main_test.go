package pglockerotel_test

import (
	"context"
	"database/sql"
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
	if os.Getenv(envURL) != "" {
		os.Exit(workerMain())
	}

	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
		MigrateFunc: func(ctx context.Context, _ *url.URL, db *sql.DB) error {
			return pglocker.MigrateDB(ctx, db, &pglocker.Config{})
		},
	})
	code := m.Run()
	databases.MustClose()
	os.Exit(code)
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

// await fails unless something holds within a minute.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()

	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// receive fails unless something comes within a minute.
func receive[T any](t *testing.T, what string, from <-chan T) (got T) {
	t.Helper()

	select {
	case got = <-from:
	case <-time.After(time.Minute):
		t.Fatalf("not within a minute: %s", what)
	}

	return got
}
