package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

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

// In a transaction of pgx the guard is a query. It returns no row if the lock is lost.
func ExampleLock_GuardSQL() {
	ctx := context.Background()

	lock, err := locker.TryLock(ctx, "guarded-pgx", time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Unlock(ctx)

	err = pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
		var token int64

		query, args := lock.GuardSQL()

		err := tx.QueryRow(ctx, query, args...).Scan(&token)
		if errors.Is(err, pgx.ErrNoRows) {
			return pglocker.ErrLockLost // rolls back
		}

		if err != nil {
			return err
		}

		_, err = tx.Exec(ctx, `UPDATE reports SET body = 'all is well'`)

		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println("committed under the lock")

	// It prints:
	// committed under the lock
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
