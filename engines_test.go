package pglocker_test

import (
	"os"
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
)

// TestContractEngines: the contract holds on distributed relatives of PostgreSQL. No Config says so. Tests make and drop
// a schema in the database of the URL.
func TestContractEngines(t *testing.T) {
	t.Parallel()

	for engine, variable := range map[string]string{
		"YugabyteDB":  "YUGABYTE_DATABASE_URL",
		"CockroachDB": "COCKROACH_DATABASE_URL",
	} {
		url := os.Getenv(variable)
		if url == "" {
			t.Run(engine, func(t *testing.T) { t.Skip(variable + " is not set") })

			continue
		}

		for _, driver := range contract.Drivers {
			setup := contract.Setup{Name: engine + ", " + driver, Driver: driver, Engine: engine, Scheme: "pglocker_" + driver}

			contract.Run(t, setup, func(tb testing.TB) string {
				tb.Helper()

				contract.Exec(tb, contract.Open(tb, "pgx", url), "DROP SCHEMA IF EXISTS "+setup.Scheme+" CASCADE")

				return url
			})
		}
	}
}
