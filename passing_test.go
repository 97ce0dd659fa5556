package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestLockAllTroublesPass: while LockAll waits, the database refuses all that it asks for. It goes on, and gets the
// locks when the database serves again.
func TestLockAllTroublesPass(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	url := contract.NewDatabase(t)
	direct := contract.Open(t, "pgx", url)
	other := contract.NewLocker(t, "pgx", url)

	direct.SetMaxOpenConns(1) // one that may write

	held, err := other.TryLock(ctx, "a", time.Minute)
	contract.Must(t, err)

	db := contract.Open(t, "pgx", url)
	db.SetMaxIdleConns(0) // each statement meets the settings of its time

	watcher := contract.NewWatcher()
	locker := contract.WatchedLocker(t, db, watcher)
	locker.SetGatherAfter(time.Millisecond)

	done := make(chan error, 1)

	go func() {
		multi, err := locker.LockAll(ctx, []string{"a", "b"}, time.Minute)
		if err == nil {
			err = multi.Unlock(ctx)
		}

		done <- err
	}()

	// Requests for both, and of both for the first alone, are told as the same.
	requests := func(refused bool) (n int) {
		for _, op := range []pglocker.Operation{pglocker.OperationAcquire, pglocker.OperationWait} {
			for _, end := range watcher.Ended(op, "a") {
				_, isHeld := errors.AsType[*pglocker.HeldError](end.Err)
				refusal, isRefused := errors.AsType[*pgconn.PgError](end.Err)

				if refused && isRefused && refusal.Code == "25006" || !refused && isHeld {
					n++
				}
			}
		}

		return n
	}
	set := func(value string) {
		name := contract.Query[string](t, direct, "SELECT current_database()")
		contract.Exec(t, direct, fmt.Sprintf("ALTER DATABASE %q SET default_transaction_read_only = %s", name, value))
	}

	contract.Await(t, "it gathers", func() bool { return requests(false) >= 3 || len(done) > 0 })
	set("on")
	contract.Await(t, "requests are refused", func() bool { return requests(true) >= 3 || len(done) > 0 })
	set("off")

	if len(done) > 0 {
		t.Fatalf("LockAll: %v", <-done)
	}

	contract.Must(t, held.Unlock(ctx))

	if err := contract.Receive(t, "LockAll returns", done); err != nil {
		t.Errorf("LockAll: %v", err)
	}
}

// TestLockedSlotIsAskedForAgain: another transaction has the row of the only permit locked, whose lease has ended.
// By the second request it is gone. The permit is granted.
func TestLockedSlotIsAskedForAgain(t *testing.T) {
	t.Parallel()

	for name, columns := range map[string]string{"six columns": "", "three columns": contract.ThreeColumns} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			const slot = "pglocker:semaphore:one:1"

			ctx := t.Context()
			url := contract.NewDatabase(t)
			direct := contract.Open(t, "pgx", url)
			contract.MakeTable(t, direct, columns)

			var requests, at atomic.Int64

			unlock := make(chan func(), 1)

			cfg, err := pgx.ParseConfig(url)
			contract.Must(t, err)

			cfg.Tracer = contract.OnStatement(func(context.Context) {
				if requests.Add(1) == at.Load() {
					(<-unlock)()
				}
			})

			db := stdlib.OpenDB(*cfg)
			t.Cleanup(func() { contract.Must(t, db.Close()) })

			locker := contract.WatchedLocker(t, db, nil)
			semaphore, err := locker.NewSemaphore("one", 1)
			contract.Must(t, err)

			p, err := semaphore.TryAcquire(ctx, time.Minute)
			contract.Must(t, err)
			contract.Must(t, p.Unlock(ctx))

			// Its holder has crashed, as far as the row shows.
			crashed := "expires_at = clock_timestamp()"
			if columns == "" {
				crashed += ", owner = 'crashed', acquired_at = clock_timestamp()"
			}

			contract.Exec(t, direct, "UPDATE pglocker.lock_statuses SET "+crashed+" WHERE lock_id = '"+slot+"'")

			stranger := contract.LockRows(t, direct, slot)

			at.Store(requests.Load() + 2)
			unlock <- func() {
				if err := stranger.Rollback(); err != nil {
					t.Error(err)
				}
			}

			p, err = semaphore.TryAcquire(ctx, time.Minute)
			if err != nil {
				t.Fatalf("TryAcquire: %v", err)
			}

			if len(unlock) > 0 {
				t.Error("it was granted while the row was locked")
			}

			contract.Must(t, p.Unlock(ctx))
		})
	}
}
