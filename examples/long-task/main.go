// Long-task runs a task that takes longer than the lease of its lock, with pgx:
// Do keeps the lock alive while the task runs.
//
//	go run ./examples/long-task [-url URL]
package main

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"os/signal"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/examples/internal/database"
)

const (
	lockID = "long-task"
	ttl    = 2 * time.Second
	steps  = 5 // of a second each: more than twice the TTL
)

func main() {
	address := flag.String("url", "", database.URLUsage)
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *address)

	stop()

	if err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, address string) (err error) {
	target, err := database.Choose(ctx, address, os.Stdout)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, target.Close()) }()

	db, err := sql.Open("pgx", target.URL)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, db.Close()) }()

	locker, err := pglocker.NewWithMigrateDB(ctx, db, &pglocker.Config{})
	if err != nil {
		return err
	}

	out := log.New(os.Stdout, "", log.Ltime|log.Lmicroseconds)
	out.Printf("asking     for lock %q: TTL %s, renewed every %s", lockID, ttl, ttl/2)

	err = locker.Do(ctx, lockID, ttl, ttl/2, func(ctx context.Context) error {
		return task(ctx, locker, out)
	})

	switch {
	case errors.Is(err, pglocker.ErrAlreadyLocked):
		return fmt.Errorf("another process runs the task: %w", err)
	case errors.Is(err, pglocker.ErrLockLost):
		return fmt.Errorf("the task was cut short: %w", err)
	case err != nil:
		return err
	}

	status, err := locker.GetLockStatus(context.WithoutCancel(ctx), lockID)
	if err != nil {
		return err
	}

	out.Printf("released   free for the next holder, whose token is above %d", status.Generation)

	return nil
}

// task works until its context ends: when the lock is lost, or when the context given to Do ends, as by
// Ctrl-C.
func task(ctx context.Context, locker *pglocker.Locker, out *log.Logger) error {
	lock, ok := pglocker.FromContext(ctx)
	if !ok {
		return errors.New("not called by Do")
	}

	out.Printf("granted    token %d, lease until %s", lock.Token(), until(lock))

	for step := 1; step <= steps; step++ {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}

		out.Printf("working    step %d of %d, token %d, lease until %s", step, steps, lock.Token(), until(lock))
	}

	// Any other process would get the same answer.
	err := locker.Do(ctx, lockID, ttl, ttl/2, func(context.Context) error { return nil })

	var held *pglocker.HeldError
	if !errors.As(err, &held) {
		return fmt.Errorf("the lock should have been held: %w", err)
	}

	out.Printf("refused    another task, %s after the first lease ended: held by %s",
		steps*time.Second-ttl, held.Owner)

	return nil
}

func until(lock *pglocker.Lock) string {
	return lock.Status().ExpiresAt.Local().Format("15:04:05.000")
}
