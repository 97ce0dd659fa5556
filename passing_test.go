package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

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
			eachDriver(t, func(t *testing.T, driver string) {
				t.Parallel()

				databaseURL := newDatabase(t)
				admin := contract.Open(t, driver, databaseURL)
				must(t, pglocker.MigrateDB(t.Context(), admin, &pglocker.Config{}))
				setDefault(t, admin, setting, "200ms")

				var log page

				w := contract.NewWatcher()
				db := contract.Open(t, driver, databaseURL)

				locker, err := pglocker.New(db, &pglocker.Config{Observer: w, Logger: slog.New(slog.NewTextHandler(&log, nil))})
				must(t, err)
				t.Cleanup(func() { closeLocker(t, locker) })

				_, err = locker.CreateLock(t.Context(), "a")
				must(t, err)

				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()

				// A stranger's transaction has the row locked, and the lock is free.
				stranger := lockRows(t, admin, "a")
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
				must(t, stranger.Rollback())

				lock := contract.Receive(t, "Lock returns", locked)
				if lock == nil {
					return
				}

				// The holder's own guarded transaction has it.
				tx, err := db.BeginTx(t.Context(), nil)
				must(t, err)
				must(t, lock.Guard(t.Context(), tx))

				unlocked := make(chan error, 1)

				go func() { unlocked <- lock.Unlock(ctx) }()

				contract.Await(t, "a release was cut short", func() bool {
					return strings.Contains(log.String(), "level=WARN") || len(unlocked) > 0
				})
				must(t, tx.Rollback())

				if err := contract.Receive(t, "Unlock returns", unlocked); err != nil {
					t.Errorf("Unlock: %v", err)
				}

				// A call that doesn't wait is told.
				lockRows(t, admin, "a")

				if _, err := locker.AcquireLock(ctx, "a", time.Minute); err == nil || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("AcquireLock: %v, want the server's error", err)
				}
			})
		})
	}
}

// makeStale makes all connections that a pool has idle read-only, as those are that were
// opened to a standby during a failover.
func makeStale(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	db.SetMaxIdleConns(n)

	conns := make([]*sql.Conn, n)

	for i := range conns {
		conn, err := db.Conn(t.Context())
		must(t, err)

		_, err = conn.ExecContext(t.Context(), "SET default_transaction_read_only = on")
		must(t, err)

		conns[i] = conn
	}

	for _, conn := range conns {
		must(t, conn.Close())
	}
}

// TestStaleConnections: connections that lead to a standby are given up for others, by every
// verb and by MigrateDB.
func TestStaleConnections(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		db := contract.Open(t, driver, newDatabase(t))
		useStale(t, db, func() { makeStale(t, db, 6) })
	})

	t.Run("pgxpool", func(t *testing.T) {
		t.Parallel()

		cfg, err := pgxpool.ParseConfig(newDatabase(t))
		must(t, err)

		cfg.MaxConns = 4

		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		must(t, err)
		t.Cleanup(pool.Close)

		db := stdlib.OpenDBFromPool(pool)
		t.Cleanup(func() { must(t, db.Close()) })

		useStale(t, db, func() {
			conns := make([]*pgxpool.Conn, cfg.MaxConns)

			for i := range conns {
				conn, err := pool.Acquire(t.Context())
				must(t, err)

				_, err = conn.Exec(t.Context(), "SET default_transaction_read_only = on")
				must(t, err)

				conns[i] = conn
			}

			for _, conn := range conns {
				conn.Release()
			}
		})
	})
}

// useStale does everything while all connections of the pool are stale.
func useStale(t *testing.T, db *sql.DB, makeStale func()) {
	t.Helper()

	ctx := t.Context()

	makeStale()
	must(t, pglocker.MigrateDB(ctx, db, &pglocker.Config{}))

	locker, err := pglocker.New(db, &pglocker.Config{})
	must(t, err)
	t.Cleanup(func() { closeLocker(t, locker) })

	makeStale()

	_, err = locker.CreateLock(ctx, "a")
	must(t, err)
	makeStale()

	status, err := locker.AcquireLock(ctx, "a", time.Minute)
	must(t, err)
	makeStale()

	status, err = locker.RefreshLock(ctx, status, time.Minute)
	must(t, err)
	makeStale()
	must(t, locker.ReleaseLock(ctx, status))
	makeStale()

	lock, err := locker.Lock(ctx, "a", time.Minute)
	must(t, err)
	makeStale()
	must(t, lock.Unlock(ctx))
	makeStale()

	lock, err = locker.TryLock(ctx, "a new one", time.Minute)
	must(t, err)
	must(t, lock.Unlock(ctx))
}

// TestNewConnectionsAreStale: a name that leads to several servers may lead to a standby five
// times in a row. A call that doesn't wait tries once more.
func TestNewConnectionsAreStale(t *testing.T) {
	t.Parallel()

	url := newDatabase(t)
	must(t, pglocker.MigrateDB(t.Context(), contract.Open(t, "pgx", url), &pglocker.Config{}))

	cfg, err := pgx.ParseConfig(url)
	must(t, err)

	var stale atomic.Int32

	db := stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		if stale.Add(-1) < 0 {
			return nil
		}

		_, err := conn.Exec(ctx, "SET default_transaction_read_only = on")

		return err
	}))
	t.Cleanup(func() { must(t, db.Close()) })
	db.SetMaxIdleConns(0) // each request opens a connection

	locker, err := pglocker.New(db, &pglocker.Config{})
	must(t, err)
	t.Cleanup(func() { closeLocker(t, locker) })

	stale.Store(5)

	status, err := locker.AcquireLock(t.Context(), "a", time.Minute)
	must(t, err)
	stale.Store(5)

	status, err = locker.RefreshLock(t.Context(), status, time.Minute)
	must(t, err)
	stale.Store(5)
	must(t, locker.ReleaseLock(t.Context(), status))
}

// TestReadOnlyForAWhile: while the whole server is read-only, waiters go on waiting, and releases
// are repeated. A call that doesn't wait is told at once what may be wrong.
func TestReadOnlyForAWhile(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		databaseURL := newDatabase(t)
		admin := contract.Open(t, driver, databaseURL)
		admin.SetMaxOpenConns(1) // one that may write
		must(t, pglocker.MigrateDB(t.Context(), admin, &pglocker.Config{}))

		var log page

		w := contract.NewWatcher()
		db := contract.Open(t, driver, databaseURL)
		db.SetMaxIdleConns(0) // each statement meets the setting of its time

		locker, err := pglocker.New(db, &pglocker.Config{Observer: w, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		must(t, err)
		t.Cleanup(func() { closeLocker(t, locker) })

		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()

		lock, err := locker.Lock(ctx, "a", 30*time.Second)
		must(t, err)

		setDefault(t, admin, "default_transaction_read_only", "on")

		began := time.Now()

		_, err = locker.AcquireLock(ctx, "b", time.Minute)
		if took := time.Since(began); !errors.Is(err, pglocker.ErrReadOnly) || took > time.Second {
			t.Errorf("AcquireLock: %v after %s, want ErrReadOnly at once", err, took)
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
