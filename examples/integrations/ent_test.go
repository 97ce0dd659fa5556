package integrations_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"

	"entgo.io/ent/dialect"
	entsql "entgo.io/ent/dialect/sql"

	"github.com/ismurov/pglocker"
)

func TestEnt(t *testing.T) {
	t.Parallel()
	checkEnt(t, func(ctx context.Context, tx *entsql.Tx) error {
		lock, _ := pglocker.FromContext(ctx)

		// The transaction of a generated client has this method by the feature sql/execquery.
		query, args := lock.GuardSQL()
		rows, err := tx.QueryContext(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()

		_, err = entsql.ScanInt64(rows)
		if errors.Is(err, sql.ErrNoRows) {
			return pglocker.ErrLockLost
		}

		return err
	})
}

// TestEntDriver: the transaction of ent's driver has a *sql.Tx in it.
func TestEntDriver(t *testing.T) {
	t.Parallel()
	checkEnt(t, func(ctx context.Context, tx *entsql.Tx) error { return pglocker.Guard(ctx, tx.Tx.(*sql.Tx)) })
}

func checkEnt(t *testing.T, guard func(context.Context, *entsql.Tx) error) {
	t.Helper()

	url := databases.NewDatabase(t).String()

	db, err := sql.Open("pgx", url)
	must(t, err)

	driver := entsql.OpenDB(dialect.Postgres, db)
	t.Cleanup(func() { must(t, driver.Close()) })

	cfg := config(t)
	locker, err := pglocker.New(driver.DB(), cfg)
	must(t, err)

	check(t, url, locker, func(ctx context.Context, body string, during func()) error {
		begun, err := driver.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer begun.Rollback()

		if err := guard(ctx, begun.(*entsql.Tx)); err != nil {
			return err
		}

		query, args := entsql.Dialect(dialect.Postgres).Update("reports").Set("body", body).Query()
		if err := begun.Exec(ctx, query, args, nil); err != nil {
			return err
		}

		during()

		return begun.Commit()
	})
}
