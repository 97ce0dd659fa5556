// Simple-task takes a lock, refreshes it and releases it by hand, with lib/pq:
// the lease verbs, for a program that keeps the status of its lock itself.
//
//	go run ./examples/simple-task [-url URL]
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

	_ "github.com/lib/pq"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/examples/internal/database"
)

const (
	lockID = "simple-task"
	ttl    = 10 * time.Second
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

	db, err := sql.Open("postgres", target.URL)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, db.Close()) }()

	locker, err := pglocker.NewWithMigrateDB(ctx, db, &pglocker.Config{})
	if err != nil {
		return err
	}

	out := log.New(os.Stdout, "", log.Ltime|log.Lmicroseconds)

	// The lease is counted from before the call: the database can't have granted
	// it any earlier.
	asked := time.Now()

	status, err := locker.AcquireLock(ctx, lockID, ttl)
	if err != nil {
		return err
	}

	out.Printf("acquired   token %d, for %s", status.Generation, ttl)
	out.Printf("           we may believe in it until %s at the latest", asked.Add(ttl).Format("15:04:05.000000"))

	_, err = locker.AcquireLock(ctx, lockID, ttl)

	var held *pglocker.HeldError
	if !errors.As(err, &held) {
		return fmt.Errorf("a second acquire should have found the lock held: %w", err)
	}

	out.Printf("refused    a second acquire: the lock is held for another %s", held.Remaining.Round(time.Millisecond))

	if err := work(ctx, time.Second); err != nil {
		// The lock frees itself at the end of its lease. After a release the next
		// process needn't wait for that.
		return errors.Join(err, locker.ReleaseLock(context.WithoutCancel(ctx), status))
	}

	out.Printf("worked     for a second; more to do, so the lease is refreshed")

	old := status

	status, err = locker.RefreshLock(ctx, old, ttl)
	if err != nil {
		return err
	}

	out.Printf("refreshed  token %d, for another %s from now", status.Generation, ttl)

	err = locker.ReleaseLock(ctx, old)
	if !errors.Is(err, pglocker.ErrWrongGeneration) {
		return fmt.Errorf("releasing by the old status should have failed: %w", err)
	}

	out.Printf("refused    a release by the old status: token %d is no longer the lock's", old.Generation)

	if err := locker.ReleaseLock(ctx, status); err != nil {
		return err
	}

	status, err = locker.GetLockStatus(ctx, lockID)
	if err != nil {
		return err
	}

	out.Printf("released   free for the next holder, whose token is above %d", status.Generation)

	return nil
}

// work stands for the task.
func work(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
