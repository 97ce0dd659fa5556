package integrations_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
)

func TestPgxpool(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()

	pool, err := pgxpool.New(t.Context(), url)
	must(t, err)
	t.Cleanup(pool.Close)

	cfg := config(t)
	locker, err := pglocker.New(stdlib.OpenDBFromPool(pool), cfg)
	must(t, err)

	check(t, url, locker, func(ctx context.Context, body string, during func()) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			lock, _ := pglocker.FromContext(ctx)

			var token int64

			query, args := lock.GuardSQL()
			err := tx.QueryRow(ctx, query, args...).Scan(&token)
			if errors.Is(err, pgx.ErrNoRows) {
				return pglocker.ErrLockLost
			}

			if err != nil {
				return err
			}

			_, err = tx.Exec(ctx, "UPDATE reports SET body = $1", body)

			during()

			return err
		})
	})
}
