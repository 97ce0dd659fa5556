package integrations_test

import (
	"context"
	"database/sql"
	"testing"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/ismurov/pglocker"
)

func TestBun(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()

	pool, err := sql.Open("pgx", url)
	must(t, err)

	db := bun.NewDB(pool, pgdialect.New())
	t.Cleanup(func() { must(t, db.Close()) })

	cfg := config(t)
	locker, err := pglocker.New(db.DB, cfg)
	must(t, err)

	check(t, url, locker, func(ctx context.Context, body string, during func()) error {
		return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			err = pglocker.Guard(ctx, tx.Tx)
			if err != nil {
				return err
			}

			_, err := tx.NewUpdate().Table("reports").Set("body = ?", body).Where("name = 'nightly'").Exec(ctx)

			during()

			return err
		})
	})
}
