package pglockercertmagic_test

import (
	"context"
	"database/sql"
	"flag"
	"net/url"
	"os"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	pglockercertmagic "github.com/ismurov/pglocker/contrib/certmagic"
	"github.com/ismurov/pglocker/pgtesting"
)

var databases *pgtesting.TestInstance

func TestMain(m *testing.M) {
	if os.Getenv(envAuthority) != "" {
		os.Exit(workerMain())
	}

	flag.Parse()

	_ = flag.Set("test.parallel", "8") // most of them wait

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

const prefix = "certmagic: "

// newLocks returns locks as a process of its own would have them.
func newLocks(t *testing.T, url string) (*pglockercertmagic.Locker, *pglocker.Locker) {
	t.Helper()

	locker, err := pglocker.New(databases.Open(t, url), &pglocker.Config{})
	must(t, err)
	t.Cleanup(func() { must(t, locker.Close(context.Background())) })

	locks, err := pglockercertmagic.NewLocker(locker, prefix, minute)
	must(t, err)

	return locks, locker
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}
