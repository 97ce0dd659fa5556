package integrations_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"

	"github.com/uptrace/bun"
	"github.com/uptrace/bun/dialect/pgdialect"

	"github.com/ismurov/pglocker"
)

func TestBun(t *testing.T) {
	t.Parallel()
	checkBun(t, func(ctx context.Context, tx bun.Tx) error {
		err := pglocker.Guard(ctx, tx.Tx)

		return err
	})
}

// TestBunTx: bun's own method would drop the arguments of the guard, which therefore is a statement of the *sql.Tx
// in the transaction.
func TestBunTx(t *testing.T) {
	t.Parallel()
	checkBun(t, func(ctx context.Context, tx bun.Tx) error { return pglocker.GuardTx(ctx, tx) })
}

// TestBunRaw: bun replaces question marks, and knows no $1.
func TestBunRaw(t *testing.T) {
	t.Parallel()
	checkBun(t, func(ctx context.Context, tx bun.Tx) error {
		lock, _ := pglocker.FromContext(ctx)

		query, args := lock.GuardSQL()
		query = strings.NewReplacer("$1", "?0", "$2", "?1").Replace(query)

		err := tx.NewRaw(query, args...).Scan(ctx, new(int64))
		if errors.Is(err, sql.ErrNoRows) {
			return pglocker.ErrLockLost
		}

		return err
	})
}

func checkBun(t *testing.T, guard func(context.Context, bun.Tx) error) {
	t.Helper()

	url := databases.NewDatabase(t).String()

	pool, err := sql.Open("pgx", url)
	must(t, err)

	db := bun.NewDB(pool, pgdialect.New())
	t.Cleanup(func() { must(t, db.Close()) })

	cfg := config(t)
	locker, err := pglocker.New(db.DB, cfg)
	must(t, err)

	refusesOutside(t, locker, db)
	check(t, url, locker, func(ctx context.Context, body string, during func()) error {
		return db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
			if err := guard(ctx, tx); err != nil {
				return err
			}

			_, err := tx.NewUpdate().Table("reports").Set("body = ?", body).Where("name = 'nightly'").Exec(ctx)

			during()

			return err
		})
	})
}
