package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ismurov/pglocker"
)

// One process of many runs the scheduler. If it fails, another takes over.
func ExampleElection_Run() {
	ctx, shutdown := context.WithCancel(context.Background()) // signal.NotifyContext, in a program
	defer shutdown()

	election, err := locker.NewElection("scheduler", 15*time.Second)
	if err != nil {
		log.Fatal(err)
	}

	err = election.Run(ctx, func(ctx context.Context, term pglocker.Term) error {
		fmt.Println("leading; token above zero:", term.Token > 0)
		fmt.Println("says so:", election.IsLeader(ctx) == nil)
		shutdown()

		<-ctx.Done() // the term is over

		return nil
	})

	fmt.Println("ended:", errors.Is(err, context.Canceled))

	// It prints:
	// leading; token above zero: true
	// says so: true
	// ended: true
}

// A leader resigns while its disk is full, so that a healthy process can lead.
func ExampleWithHealthCheck() {
	ctx, shutdown := context.WithCancel(context.Background())
	defer shutdown()

	full := make(chan struct{})

	election, err := locker.NewElection("writer", 15*time.Second,
		pglocker.WithHealthCheck(10*time.Millisecond, func(context.Context) error {
			select {
			case <-full:
				return errors.New("the disk is full")
			default:
				return nil
			}
		}))
	if err != nil {
		log.Fatal(err)
	}

	_ = election.Run(ctx, func(ctx context.Context, _ pglocker.Term) error {
		close(full)

		<-ctx.Done()
		fmt.Println("resigning:", context.Cause(ctx))
		shutdown()

		return nil
	})

	// It prints:
	// resigning: pglocker: health check failed: the disk is full
}

// A dashboard shows who leads.
func ExampleElection_Observe() {
	ctx, done := context.WithTimeout(context.Background(), time.Minute)
	defer done()

	election, err := locker.NewElection("observed", 15*time.Second, pglocker.WithObserveOnly())
	if err != nil {
		log.Fatal(err)
	}

	for term, err := range election.Observe(ctx) {
		switch {
		case err != nil:
			fmt.Println("can't look at present:", err)

			continue
		case term.Vacant():
			fmt.Println("no leader")
		default:
			fmt.Println(term.Leader, "leads since", term.Since)
		}

		break // a dashboard goes on
	}

	// It prints:
	// no leader
}

// An operator moves the leader elsewhere.
func ExampleElection_RequestResign() {
	ctx := context.Background()

	election, err := locker.NewElection("moved", 15*time.Second, pglocker.WithObserveOnly())
	if err != nil {
		log.Fatal(err)
	}

	term, err := election.Leader(ctx)
	if errors.Is(err, pglocker.ErrNoLeader) {
		fmt.Println("nobody to ask")

		return
	}

	if err == nil {
		err = election.RequestResign(ctx, term.Token) // a newer leader isn't asked
	}

	if err != nil {
		log.Fatal(err)
	}

	// It prints:
	// nobody to ask
}
