// Custom-migrations locks in a table that the project's own migrations make: the
// three columns that every lock table needs, in the schema public. The role that
// runs it needs SELECT, INSERT and UPDATE there, and no right to create anything.
//
//	go run ./examples/custom-migrations [-url URL]
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

// migration stands for a file of the project's migration tool.
const migration = `
CREATE TABLE IF NOT EXISTS public.job_locks (
    lock_id    TEXT COLLATE "C" PRIMARY KEY,
    generation BIGINT NOT NULL,
    expires_at TIMESTAMPTZ NOT NULL
)`

const (
	lockID = "custom-migrations"
	ttl    = 5 * time.Second
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

	out := log.New(os.Stdout, "", log.Ltime|log.Lmicroseconds)

	if _, err := db.ExecContext(ctx, migration); err != nil {
		return fmt.Errorf("the project's migration: %w", err)
	}

	out.Printf("migrated   table public.job_locks, three columns; it stays when this program ends")

	locker, err := pglocker.New(db, &pglocker.Config{
		Scheme: pglocker.PublicScheme,
		Table:  "job_locks",
	})
	if err != nil {
		return err
	}

	err = locker.Do(ctx, lockID, ttl, ttl/2, func(ctx context.Context) error {
		lock, ok := pglocker.FromContext(ctx)
		if !ok {
			return errors.New("not called by Do")
		}

		out.Printf("granted    token %d", lock.Token())

		_, err := locker.AcquireLock(ctx, lockID, ttl)

		var held *pglocker.HeldError
		if !errors.As(err, &held) {
			return fmt.Errorf("a second acquire should have found the lock held: %w", err)
		}

		out.Printf("refused    a second acquire: held for another %s; by whom, three columns don't tell",
			held.Remaining.Round(time.Millisecond))

		return nil
	})
	if err != nil {
		return err
	}

	status, err := locker.GetLockStatus(ctx, lockID)
	if err != nil {
		return err
	}

	out.Printf("released   free for the next holder, whose token is above %d", status.Generation)

	return nil
}
