package contract

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"go.uber.org/goleak"

	"github.com/ismurov/pglocker/internal/race"
	"github.com/ismurov/pglocker/internal/tmpfs"
	"github.com/ismurov/pglocker/pgtesting"
)

// Drivers are all that the library supports, by their names in database/sql.
var Drivers = []string{"pgx", "postgres"}

// databases are on the server of CI_DATABASE_URL, or on a throwaway one.
var databases *pgtesting.TestInstance

// Main is TestMain for the packages whose tests need databases. sideBySide is how many tests run
// at the same time, at least: most of them wait for a lease to end, or for a server that is to
// be slow. A goroutine that is left over fails the package.
func Main(m *testing.M, sideBySide int) {
	flag.Parse()
	tmpfs.Use()

	if race.Enabled {
		sideBySide = 5 // which keeps the processor busy
	}

	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = parallel.Value.Set(strconv.Itoa(max(sideBySide, runtime.GOMAXPROCS(0)))) // it is a number
	}

	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
		ServerOptions: []pgtesting.ServerOption{
			// Many tests run at once, and some open connections until they can't.
			pgtesting.WithSetting("max_connections", "1000"),
			pgtesting.WithSetting("max_prepared_transactions", "20"),
		},
	})

	pauses := watchPauses()
	code := m.Run()

	pauses.end(os.Stderr, code != 0)
	databases.MustClose()

	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)

		code = 1
	}

	os.Exit(code)
}

// EachDriver runs a test once for each driver.
func EachDriver(t *testing.T, test func(t *testing.T, driver string)) {
	for _, driver := range Drivers {
		t.Run(driver, func(t *testing.T) { test(t, driver) })
	}
}

// NewDatabase makes an empty database and returns its URL.
func NewDatabase(tb testing.TB) string {
	tb.Helper()

	return databases.NewDatabase(tb).String()
}

// Server is the throwaway server of the databases, nil if CI_DATABASE_URL gave one.
func Server() *pgtesting.Server { return databases.Server() }

// StartServer starts a server of the test's own, to be broken, or to count what is on it.
func StartServer(tb testing.TB, opts ...pgtesting.ServerOption) *pgtesting.Server {
	tb.Helper()

	if testing.Short() {
		tb.Skip("needs a server of its own")
	}

	server, err := pgtesting.StartServer(tb.Context(), opts...)
	Must(tb, err)
	tb.Cleanup(func() {
		if err := server.Stop(); err != nil {
			tb.Error(err)
		}
	})

	return server
}
