package pglocker_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"go.uber.org/goleak"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// databases are on the server of CI_DATABASE_URL, or on a throwaway one.
var databases *pgtesting.TestInstance

// drivers are all that the library supports, by their names in database/sql.
var drivers = []string{"pgx", "postgres"}

func TestMain(m *testing.M) {
	databases = pgtesting.MustTestInstance(context.Background(), &pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
	})

	code := m.Run()

	databases.MustClose()

	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)

		code = 1
	}

	os.Exit(code)
}

// eachDriver runs a test once for each driver.
func eachDriver(t *testing.T, test func(t *testing.T, driver string)) {
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) { test(t, driver) })
	}
}

// newDatabase makes an empty database and returns its URL.
func newDatabase(tb testing.TB) string {
	tb.Helper()

	return databases.NewDatabase(tb).String()
}

// newLocker returns a locker with the defaults and a table of its own, over a
// handle of its own.
func newLocker(t *testing.T, driver, url string) *pglocker.Locker {
	t.Helper()

	locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, driver, url), &pglocker.Config{})
	if err != nil {
		t.Fatal(err)
	}

	// A request whose answer was lost is still settled in the background.
	t.Cleanup(func() { closeLocker(t, locker) })

	return locker
}
