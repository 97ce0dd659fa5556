package integrations_test

import (
	"context"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/ismurov/pglocker"
)

func TestSqlx(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()

	db, err := sqlx.Open("pgx", url)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })

	cfg := config(t)
	locker, err := pglocker.New(db.DB, cfg)
	must(t, err)

	refusesOutside(t, locker, db)
	check(t, url, locker, func(ctx context.Context, body string, during func()) error {
		tx, err := db.BeginTxx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()

		if err := pglocker.Guard(ctx, tx.Tx); err != nil {
			return err
		}

		_, err = tx.NamedExecContext(ctx, "UPDATE reports SET body = :body", map[string]any{"body": body})
		if err != nil {
			return err
		}

		during()

		return tx.Commit()
	})
}
