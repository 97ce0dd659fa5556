package integrations_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ismurov/pglocker"
)

func TestPgxpool(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()

	pool, err := pgxpool.New(t.Context(), url)
	must(t, err)
	t.Cleanup(pool.Close)

	cfg := config(t)
	locker, err := pglocker.NewPool(pool, cfg)
	must(t, err)

	check(t, url, locker, func(ctx context.Context, body string, during func()) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if err := pglocker.GuardPgx(ctx, tx); err != nil {
				return err
			}

			_, err := tx.Exec(ctx, "UPDATE reports SET body = $1", body)

			during()

			return err
		})
	})
}
