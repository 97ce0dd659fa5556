package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ismurov/pglocker"
)

// At start-up, after MigrateDB. From then on each grant and each end of a tenure is an event.
func ExampleMigrateHistory() {
	if err := pglocker.MigrateHistory(context.Background(), db, &pglocker.Config{}); err != nil {
		log.Fatal(err)
	}

	fmt.Println("pglocker.lock_history is there")

	// It prints:
	// pglocker.lock_history is there
}

// Events of one lock come in the order of its tokens.
func ExampleLocker_History() {
	ctx := context.Background()

	err := locker.Do(ctx, "nightly-report", time.Minute, 20*time.Second, func(context.Context) error { return nil })
	if err != nil {
		log.Fatal(err)
	}

	for event, err := range locker.History(ctx, "nightly-report", time.Now().Add(-24*time.Hour)) {
		if err != nil {
			log.Fatal(err)
		}

		fmt.Println(event.Kind, event.Token)
	}

	// It prints:
	// granted 2
	// released 2
}

// Who held it at that time, and did it crash?
func ExampleLocker_HolderAt() {
	ctx := context.Background()

	tenure, err := locker.HolderAt(ctx, "nightly-import", time.Now().Add(-3*time.Hour))

	switch {
	case errors.Is(err, pglocker.ErrNoHolder):
		fmt.Println("nobody")
	case err != nil:
		log.Fatal(err)
	case tenure.End == pglocker.EventExpired:
		fmt.Println(tenure.Owner, "held it, and crashed at", tenure.Until)
	default:
		fmt.Println(tenure.Owner, "held it from", tenure.Since, "until", tenure.Until)
	}

	// It prints:
	// nobody
}
