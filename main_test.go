package pglocker_test

import (
	"database/sql"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
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

// sideBySide is how many tests run at the same time, at least. Most of them wait for a lease
// to end, or for a server that is to be slow.
const sideBySide = 20

func TestMain(m *testing.M) {
	flag.Parse()

	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = parallel.Value.Set(strconv.Itoa(max(sideBySide, runtime.GOMAXPROCS(0)))) // it is a number
	}

	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
		// Many tests run at once, and some open connections until they can't.
		ServerOptions: []pgtesting.ServerOption{pgtesting.WithSetting("max_connections", "1000")},
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

// lockRows locks the rows of the locks whose ids are like that, as somebody would who isn't
// pglocker, until its transaction or the test ends.
func lockRows(t *testing.T, db *sql.DB, like string) *sql.Tx {
	t.Helper()

	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)
	t.Cleanup(func() { _ = tx.Rollback() }) // mostly it has ended

	_, err = tx.ExecContext(t.Context(), "SELECT FROM pglocker.lock_statuses WHERE lock_id LIKE $1 FOR UPDATE", like)
	must(t, err)

	return tx
}

// rowWaits is how many statements on the database wait for somebody's lock, of a row mostly.
func rowWaits(t *testing.T, db *sql.DB) int {
	t.Helper()

	return contract.Query[int](t, db, `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock'`)
}
