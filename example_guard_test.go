package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
)

// A transaction with the guard in it commits only if the lock was held until then, even if the
// process was paused.
func ExampleGuard() {
	ctx := context.Background()

	err := locker.Do(ctx, "guarded", time.Minute, 20*time.Second, func(ctx context.Context) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()

		if err := pglocker.Guard(ctx, tx); err != nil {
			return err
		}

		if _, err := tx.ExecContext(ctx, `UPDATE reports SET body = 'all is well'`); err != nil {
			return err
		}

		return tx.Commit()
	})
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println("committed under the lock")

	// It prints:
	// committed under the lock
}

// pool is that of a program that uses pgx without database/sql.
var pool *pgxpool.Pool

// A program that uses pgx without database/sql gives the Locker its pool. Only MigrateDB takes a database handle.
func ExampleNewPool() {
	ctx := context.Background()
	cfg := &pglocker.Config{}

	handle := stdlib.OpenDBFromPool(pool)
	defer handle.Close() // the pool stays open

	if err := pglocker.MigrateDB(ctx, handle, cfg); err != nil {
		log.Fatal(err)
	}

	locker, err := pglocker.NewPool(pool, cfg)
	if err != nil {
		log.Fatal(err)
	}

	err = locker.Do(ctx, "guarded-pgx", time.Minute, 20*time.Second, func(ctx context.Context) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			if err := pglocker.GuardPgx(ctx, tx); err != nil {
				return err // rolls back
			}

			_, err := tx.Exec(ctx, `UPDATE reports SET body = 'all is well'`)

			return err
		})
	})
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println("committed under the lock")

	// It prints:
	// committed under the lock
}

// A function that is given a transaction of another library guards it by GuardTx.
func ExampleGuardTx() {
	ctx := context.Background()

	// tx may be gorm's ConnPool, bun's Tx, sqlx's Tx, or a *sql.Tx.
	write := func(ctx context.Context, tx pglocker.Tx) error {
		if err := pglocker.GuardTx(ctx, tx); err != nil {
			return err
		}

		var reports int

		return tx.QueryRowContext(ctx, `WITH written AS (UPDATE reports SET body = 'all is well' RETURNING 1)
			SELECT count(*) FROM written`).Scan(&reports)
	}

	err := locker.Do(ctx, "guarded-tx", time.Minute, 20*time.Second, func(ctx context.Context) error {
		return write(ctx, db)
	})
	if errors.Is(err, pglocker.ErrNoTransaction) {
		fmt.Println("not in a transaction")
	}

	// It prints:
	// not in a transaction
}

// A resource outside the database remembers the largest token that it has seen, and refuses
// smaller ones.
func ExampleToken() {
	ctx := context.Background()

	err := locker.Do(ctx, "fenced", time.Minute, 20*time.Second, func(ctx context.Context) error {
		token, _ := pglocker.Token(ctx)
		fmt.Println("writing with token", token)

		return nil
	})
	if err != nil {
		log.Fatal(err)
	}

	// It prints:
	// writing with token 2
}
