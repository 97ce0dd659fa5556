package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"maps"
	"slices"
	"time"

	"github.com/ismurov/pglocker"
)

// Two accounts are locked for a transfer. Another transfer may name them in the other order.
func ExampleLocker_DoAll() {
	ctx := context.Background()

	err := locker.DoAll(ctx, []string{"account:7", "account:3"}, time.Minute, 20*time.Second, func(ctx context.Context) error {
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			return err
		}
		defer tx.Rollback()

		// It proves that both are held until the commit.
		if err := pglocker.Guard(ctx, tx); err != nil {
			return err
		}

		fmt.Println("100 from account 7 to account 3")

		return tx.Commit()
	}, pglocker.WithWait(pglocker.Forever))
	if err != nil {
		log.Fatal(err)
	}

	// It prints:
	// 100 from account 7 to account 3
}

// All locks are taken, or none. Each has a token of its own.
func ExampleLocker_TryLockAll() {
	ctx := context.Background()

	locks, err := locker.TryLockAll(ctx, []string{"shelf:2", "shelf:1"}, time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	defer locks.Unlock(ctx)

	for _, id := range slices.Sorted(maps.Keys(locks.Tokens())) {
		fmt.Println("holds", id)
	}

	_, err = locker.TryLockAll(ctx, []string{"shelf:3", "shelf:2"}, time.Minute)

	var held *pglocker.HeldError
	if errors.As(err, &held) {
		fmt.Println("in the way:", held.LockID)
	}

	// It prints:
	// holds shelf:1
	// holds shelf:2
	// in the way: shelf:2
}
