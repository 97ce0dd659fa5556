package faulttest

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestTimeoutsOfTheRole: where settings of the role or the database cut statements short, waiters
// go on waiting, and releases are repeated.
func TestTimeoutsOfTheRole(t *testing.T) {
	t.Parallel()

	for _, setting := range []string{"lock_timeout", "statement_timeout"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			contract.EachDriver(t, func(t *testing.T, driver string) {
				t.Parallel()

				databaseURL := contract.NewDatabase(t)
				admin := contract.Open(t, driver, databaseURL)
				contract.Must(t, pglocker.MigrateDB(t.Context(), admin, &pglocker.Config{}))
				setDefault(t, admin, setting, "200ms")

				var log contract.Page

				w := contract.NewWatcher()
				db := contract.Open(t, driver, databaseURL)

				locker, err := pglocker.New(db, &pglocker.Config{Observer: w, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				contract.Must(t, err)
				t.Cleanup(func() { contract.CloseLocker(t, locker) })

				_, err = locker.CreateLock(t.Context(), "a")
				contract.Must(t, err)

				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()

				// A stranger's transaction has the row locked, and the lock is free.
				stranger := contract.LockRows(t, admin, "a")
				locked := make(chan *pglocker.Lock, 1)

				go func() {
					lock, err := locker.Lock(ctx, "a", 15*time.Second)
					if err != nil {
						t.Errorf("Lock: %v", err)
					}

					locked <- lock
				}()

				contract.Await(t, "a request was cut short, and it waits", func() bool {
					return w.UnderWay(pglocker.OperationWait) || len(locked) > 0
				})
				contract.Must(t, stranger.Rollback())

				lock := contract.Receive(t, "Lock returns", locked)
				if lock == nil {
					return
				}

				// The holder's own guarded transaction has it.
				tx, err := db.BeginTx(t.Context(), nil)
				contract.Must(t, err)
				contract.Must(t, lock.Guard(t.Context(), tx))

				unlocked := make(chan error, 1)

				go func() { unlocked <- lock.Unlock(ctx) }()

				contract.Await(t, "a release was cut short", func() bool {
					return strings.Contains(log.String(), "level=WARN") || len(unlocked) > 0
				})
				contract.Must(t, tx.Rollback())

				if err := contract.Receive(t, "Unlock returns", unlocked); err != nil {
					t.Errorf("Unlock: %v", err)
				}

				// A call that doesn't wait is told.
				contract.LockRows(t, admin, "a")

				if _, err := locker.AcquireLock(ctx, "a", time.Minute); err == nil || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("AcquireLock: %v, want the server's error", err)
				}
			})
		})
	}
}

// TestReadOnlyForAWhile: while the whole server is read-only, waiters go on waiting, and releases
// are repeated. A call that doesn't wait is told at once what may be wrong.
func TestReadOnlyForAWhile(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		databaseURL := contract.NewDatabase(t)
		admin := contract.Open(t, driver, databaseURL)
		admin.SetMaxOpenConns(1) // one that may write
		contract.Must(t, pglocker.MigrateDB(t.Context(), admin, &pglocker.Config{}))

		var log contract.Page

		w := contract.NewWatcher()
		db := contract.Open(t, driver, databaseURL)
		db.SetMaxIdleConns(0) // each statement meets the setting of its time

		locker, err := pglocker.New(db, &pglocker.Config{Observer: w, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()

		lock, err := locker.Lock(ctx, "a", 30*time.Second)
		contract.Must(t, err)

		setDefault(t, admin, "default_transaction_read_only", "on")

		connections := func() int64 { return db.Stats().MaxIdleClosed } // none stays idle
		before := connections()

		_, err = locker.AcquireLock(ctx, "b", time.Minute)
		if tried := connections() - before; !errors.Is(err, pglocker.ErrReadOnly) || tried > 8 {
			t.Errorf("AcquireLock: %v after %d connections, want ErrReadOnly after 8 at most", err, tried)
		} else {
			for _, advice := range []string{"target_session_attrs=read-write", "SetConnMaxLifetime"} {
				if !strings.Contains(err.Error(), advice) {
					t.Errorf("%v, want it to name %s", err, advice)
				}
			}
		}

		unlocked := make(chan error, 1)
		locked := make(chan error, 1)

		go func() { unlocked <- lock.Unlock(ctx) }()
		go func() {
			lock, err := locker.Lock(ctx, "b", time.Minute)
			if err == nil {
				err = lock.Unlock(ctx)
			}

			locked <- err
		}()

		contract.Await(t, "both go on", func() bool {
			return strings.Contains(log.String(), "level=WARN") && w.UnderWay(pglocker.OperationWait) || len(unlocked)+len(locked) > 0
		})
		setDefault(t, admin, "default_transaction_read_only", "off")

		if err := contract.Receive(t, "Unlock returns", unlocked); err != nil {
			t.Errorf("Unlock: %v", err)
		}

		if err := contract.Receive(t, "Lock returns", locked); err != nil {
			t.Errorf("Lock: %v", err)
		}
	})
}
