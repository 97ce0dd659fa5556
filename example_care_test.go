package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker"
)

// Lists the locks that are held now.
func ExampleLocker_Locks() {
	list := func(ctx context.Context, locker *pglocker.Locker) error {
		for status, err := range locker.Locks(ctx, pglocker.LocksFilter{Prefix: "import-", Held: true}) {
			if err != nil {
				return err
			}

			fmt.Println(status.LockID, "is held by", status.Owner, "since", status.AcquiredAt)
		}

		return nil
	}

	_ = list
}

// Ends the tenure of a holder that is known to be gone.
func ExampleLocker_ForceRelease() {
	free := func(ctx context.Context, locker *pglocker.Locker, lockID string) error {
		status, err := locker.GetLockStatus(ctx, lockID)
		if err != nil {
			return err
		}

		err = locker.ForceRelease(ctx, lockID, status.Generation, "host worker-7 is gone, INC-1234")
		if errors.Is(err, pglocker.ErrWrongGeneration) {
			return nil // it was released meanwhile
		}

		return err
	}

	_ = free
}

// Deletes the rows of locks that nobody has used for a week. Only one process does it.
func ExampleLocker_Prune() {
	prune := func(ctx context.Context, locker *pglocker.Locker) error {
		return locker.Do(ctx, "prune-locks", time.Minute, 20*time.Second, func(ctx context.Context) error {
			removed, err := locker.Prune(ctx, 7*24*time.Hour)
			fmt.Println(removed, "rows were removed")

			return err
		})
	}

	_ = prune
}

// Cleans up what a holder that crashed has left half done.
func ExampleLock_PreviousHolderCrashed() {
	work := func(ctx context.Context, locker *pglocker.Locker, cleanUp, report func(context.Context) error) error {
		return locker.Do(ctx, "nightly-report", time.Minute, 20*time.Second, func(ctx context.Context) error {
			if lock, _ := pglocker.FromContext(ctx); lock.PreviousHolderCrashed() {
				if err := cleanUp(ctx); err != nil {
					return err
				}
			}

			return report(ctx)
		})
	}

	_ = work
}
