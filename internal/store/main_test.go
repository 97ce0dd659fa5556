package store_test

import (
	"database/sql"
	"fmt"
	"os"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"go.uber.org/goleak"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/tmpfs"
	"github.com/ismurov/pglocker/pgtesting"
)

// databases are on the server of CI_DATABASE_URL, or on a throwaway one.
var databases *pgtesting.TestInstance

func TestMain(m *testing.M) {
	tmpfs.Use()

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

// table is where the tests' locks are.
var table = store.Table{Schema: "pglocker", Name: "lock_statuses"}

// eachDriver runs a test once for each driver.
func eachDriver(t *testing.T, test func(t *testing.T, driver string)) {
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, driver)
		})
	}
}

// newStore returns a store on a new database with the six-column table, and the
// handle it is on.
func newStore(t *testing.T, driver string) (*store.Store, *sql.DB) {
	t.Helper()

	db := contract.Open(t, driver, databases.NewDatabase(t).String())
	if err := store.Migrate(t.Context(), db, table, nil); err != nil {
		t.Fatal(err)
	}

	return store.New(db, table, nil), db
}
