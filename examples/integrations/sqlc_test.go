package integrations_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/examples/integrations/sqlc/reports"
)

// TestSqlc: code that sqlc generates is given the transaction, and so is the guard. With sql_package
// database/sql it is a *sql.Tx, for Guard.
func TestSqlc(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()

	pool, err := pgxpool.New(t.Context(), url)
	must(t, err)
	t.Cleanup(pool.Close)

	queries := reports.New(pool)

	cfg := config(t)
	locker, err := pglocker.NewPool(pool, cfg)
	must(t, err)

	check(t, url, locker, func(ctx context.Context, body string, during func()) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if err := pglocker.GuardPgx(ctx, tx); err != nil {
				return err
			}

			err := queries.WithTx(tx).WriteReport(ctx, body)

			during()

			return err
		})
	})
}
