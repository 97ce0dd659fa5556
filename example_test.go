package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ismurov/pglocker"
)

// What the examples take for granted; TestExamples sets it.
var (
	db     *sql.DB
	locker *pglocker.Locker
)

// The lock's table is made by MigrateDB, which every process may call at its start.
func ExampleMigrateDB() {
	ctx := context.Background()
	cfg := &pglocker.Config{Scheme: "jobs", Table: "locks"}

	if err := pglocker.MigrateDB(ctx, db, cfg); err != nil {
		log.Fatal(err)
	}

	locker, err := pglocker.New(db, cfg)
	if err != nil {
		log.Fatal(err)
	}

	err = locker.Do(ctx, "nightly-report", time.Minute, 20*time.Second, func(context.Context) error {
		fmt.Println("in table jobs.locks")

		return nil
	})
	if err != nil {
		log.Fatal(err)
	}

	// It prints:
	// in table jobs.locks
}

// A table that the program's own migrations make needs three columns.
func ExampleNew() {
	ctx := context.Background()

	_, err := db.ExecContext(ctx, `
		CREATE TABLE public.job_locks (
			lock_id    TEXT COLLATE "C" PRIMARY KEY,
			generation BIGINT NOT NULL,
			expires_at TIMESTAMPTZ NOT NULL
		)`)
	if err != nil {
		log.Fatal(err)
	}

	locker, err := pglocker.New(db, &pglocker.Config{Scheme: pglocker.PublicScheme, Table: "job_locks"})
	if err != nil {
		log.Fatal(err)
	}

	err = locker.Do(ctx, "nightly-report", time.Minute, 20*time.Second, func(context.Context) error {
		fmt.Println("in table public.job_locks")

		return nil
	})
	if err != nil {
		log.Fatal(err)
	}

	// It prints:
	// in table public.job_locks
}

// A job that one process of many runs.
func ExampleLocker_Do() {
	ctx := context.Background()

	// The lease runs for a minute and is renewed every 20 seconds. ctx ends if the lock is lost.
	err := locker.Do(ctx, "report", time.Minute, 20*time.Second, func(ctx context.Context) error {
		fmt.Println("writing the report")

		return ctx.Err()
	})

	switch {
	case errors.Is(err, pglocker.ErrAlreadyLocked):
		fmt.Println("another process writes it:", err)
	case errors.Is(err, pglocker.ErrLockLost):
		fmt.Println("another process may have begun:", err)
	case err != nil:
		log.Fatal(err)
	}

	// It prints:
	// writing the report
}

// A leader leads until it loses the lock or the program ends, and then lets the next one lead.
func ExampleLocker_Lock() {
	ctx, shutdown := context.WithCancel(context.Background()) // signal.NotifyContext, in a program
	defer shutdown()

	lock, err := locker.Lock(ctx, "leader", 15*time.Second) // waits
	if err != nil {
		log.Fatal(err)
	}

	leading, stop := context.WithCancel(lock.Context())
	defer stop()
	defer context.AfterFunc(ctx, stop)()

	fmt.Println("leading")
	shutdown()

	<-leading.Done()
	fmt.Println("not leading any more")

	// The end of ctx doesn't release the lock.
	if err := lock.Unlock(context.WithoutCancel(ctx)); err != nil {
		log.Print(err)
	}

	// It prints:
	// leading
	// not leading any more
}

// A lock for work that isn't one function call.
func ExampleLocker_TryLock() {
	ctx := context.Background()

	lock, err := locker.TryLock(ctx, "import", time.Minute)
	if err != nil {
		log.Fatal(err)
	}

	_, err = locker.TryLock(ctx, "import", time.Minute)
	fmt.Println("a second time:", errors.Is(err, pglocker.ErrAlreadyLocked))

	if err := lock.Unlock(ctx); err != nil {
		log.Fatal(err)
	}

	// It prints:
	// a second time: true
}

// Customers are served one at a time. A request waits for the one before.
func ExampleWithWait() {
	ctx := context.Background()
	customer := 42

	err := locker.Do(ctx, fmt.Sprintf("customer-%d", customer), 30*time.Second, 10*time.Second,
		func(ctx context.Context) error {
			fmt.Println("serving customer", customer)

			return ctx.Err()
		},
		pglocker.WithWait(5*time.Second))

	switch {
	case errors.Is(err, pglocker.ErrAlreadyLocked):
		fmt.Println("busy for five seconds, try again later")
	case err != nil:
		log.Fatal(err)
	}

	// It prints:
	// serving customer 42
}

// Every process starts the job once per minute, by its own clock, and one of them runs it.
func ExampleWithMinHold() {
	ctx := context.Background()

	for range 3 { // processes
		err := locker.Do(ctx, "each-minute", 30*time.Second, 10*time.Second,
			func(context.Context) error {
				fmt.Println("running")

				return nil
			},
			pglocker.WithMinHold(40*time.Second)) // less than the slot, more than clocks differ

		switch {
		case errors.Is(err, pglocker.ErrAlreadyLocked):
			fmt.Println("it runs, or has run in this minute")
		case err != nil:
			log.Fatal(err)
		}
	}

	// It prints:
	// running
	// it runs, or has run in this minute
	// it runs, or has run in this minute
}

// A HeldError says who has the lock.
func ExampleHeldError() {
	ctx := context.Background()

	lock, err := locker.TryLock(ctx, "backup", time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	defer lock.Unlock(ctx)

	_, err = locker.TryLock(ctx, "backup", time.Minute)

	var held *pglocker.HeldError
	if errors.As(err, &held) {
		// held.Owner is by whom: the host and process, unless Config.Owner says otherwise.
		fmt.Println(held.LockID, "is held for another", held.Remaining.Round(time.Minute))
	}

	// It prints:
	// backup is held for another 1m0s
}
