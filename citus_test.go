package pglocker_test

import (
	"os"
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
)

// citusURL is the database of a Citus cluster, on its coordinator. Tests make and drop schemas there.
func citusURL(tb testing.TB) string {
	tb.Helper()

	url := os.Getenv("CITUS_DATABASE_URL")
	if url == "" {
		tb.Skip("CITUS_DATABASE_URL is not set")
	}

	return url
}

// TestContractCitus: the contract holds on tables that Citus spreads over several servers. No Config says so.
func TestContractCitus(t *testing.T) {
	t.Parallel()

	url := citusURL(t)

	for _, setup := range []contract.Setup{
		{Name: "pgx", Driver: "pgx", Scheme: "pglocker_pgx"},
		{Name: "postgres", Driver: "postgres", Scheme: "pglocker_pq"},
		{Name: "own table", Driver: "pgx", Scheme: "pglocker_own", Columns: contract.ThreeColumns},
	} {
		setup.Distributed = true

		contract.Run(t, setup, func(tb testing.TB) string {
			tb.Helper()

			db := contract.Open(tb, "pgx", url)
			contract.Exec(tb, db, "DROP SCHEMA IF EXISTS "+setup.Scheme+" CASCADE")

			return url
		})
	}
}
