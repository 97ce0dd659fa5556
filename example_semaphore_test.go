package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ismurov/pglocker"
)

// At most three processes at a time talk to a slow service. The number is the caller's: a new version of the
// program may use another, while old ones still run.
func ExampleSemaphore_Do() {
	ctx := context.Background()

	slow, err := locker.NewSemaphore("slow-service", 3)
	if err != nil {
		log.Fatal(err)
	}

	err = slow.Do(ctx, time.Minute, 20*time.Second, func(ctx context.Context) error {
		permit, _ := pglocker.PermitFromContext(ctx)
		fmt.Println("working in slot", permit.Slot())

		return nil // it ends soon after ctx does
	}, pglocker.WithWait(pglocker.Forever))
	if err != nil {
		log.Fatal(err)
	}

	// It prints:
	// working in slot 1
}

// A large job takes several permits at once, all or none.
func ExampleWithPermits() {
	ctx := context.Background()

	memory, err := locker.NewSemaphore("gigabytes", 8)
	if err != nil {
		log.Fatal(err)
	}

	large, err := memory.Acquire(ctx, time.Minute, pglocker.WithPermits(6))
	if err != nil {
		log.Fatal(err)
	}

	_, err = memory.TryAcquire(ctx, time.Minute, pglocker.WithPermits(3))
	fmt.Println("three more:", !errors.Is(err, pglocker.ErrAlreadyLocked))

	if err := large.Unlock(ctx); err != nil {
		log.Fatal(err)
	}

	small, err := memory.TryAcquire(ctx, time.Minute, pglocker.WithPermits(3))
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println("slots", small.Slots())

	if err := small.Unlock(ctx); err != nil {
		log.Fatal(err)
	}

	// It prints:
	// three more: false
	// slots [1 2 3]
}
