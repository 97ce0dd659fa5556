package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ismurov/pglocker"
)

// Lists the locks that are held now.
func ExampleLocker_Locks() {
	ctx := context.Background()

	lock, err := locker.TryLock(ctx, "import-customers", time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Unlock(ctx)

	for status, err := range locker.Locks(ctx, pglocker.LocksFilter{Prefix: "import-", Held: true}) {
		if err != nil {
			log.Fatal(err)
		}

		fmt.Println(status.LockID, "is held")
	}

	// It prints:
	// import-customers is held
}

// Ends the tenure of a holder that is known to be gone.
func ExampleLocker_ForceRelease() {
	ctx := context.Background()

	lock, err := locker.TryLock(ctx, "stuck", time.Hour)
	if err != nil {
		log.Fatal(err)
	}

	status, err := locker.GetLockStatus(ctx, "stuck")
	if err != nil {
		log.Fatal(err)
	}

	if err := locker.ForceRelease(ctx, "stuck", status.Generation, "host worker-7 is gone, INC-1234"); err != nil {
		log.Fatal(err)
	}

	fmt.Println("the holder has lost it:", errors.Is(context.Cause(lock.Context()), pglocker.ErrLockLost))

	// It prints:
	// the holder has lost it: true
}

// Deletes the rows of locks that nobody has used for a week. Only one process does it.
func ExampleLocker_Prune() {
	err := locker.Do(context.Background(), "prune-locks", time.Minute, 20*time.Second, func(ctx context.Context) error {
		removed, err := locker.Prune(ctx, 7*24*time.Hour)
		fmt.Println(removed, "rows were removed")

		return err
	})
	if err != nil {
		log.Fatal(err)
	}

	// It prints:
	// 0 rows were removed
}

// Cleans up what a holder that crashed has left half done.
func ExampleLock_PreviousHolderCrashed() {
	err := locker.Do(context.Background(), "nightly-clean", time.Minute, 20*time.Second, func(ctx context.Context) error {
		if lock, _ := pglocker.FromContext(ctx); lock.PreviousHolderCrashed() {
			fmt.Println("cleaning up")
		}

		fmt.Println("working")

		return nil
	})
	if err != nil {
		log.Fatal(err)
	}

	// It prints:
	// working
}
