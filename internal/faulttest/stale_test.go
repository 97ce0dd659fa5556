package faulttest

import (
	"context"
	"database/sql"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// makeStale makes all connections that a pool has idle read-only, as those are that were
// opened to a standby during a failover.
func makeStale(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	db.SetMaxIdleConns(n)

	conns := make([]*sql.Conn, n)

	for i := range conns {
		conn, err := db.Conn(t.Context())
		contract.Must(t, err)

		_, err = conn.ExecContext(t.Context(), "SET default_transaction_read_only = on")
		contract.Must(t, err)

		conns[i] = conn
	}

	for _, conn := range conns {
		contract.Must(t, conn.Close())
	}
}

// TestStaleConnections: connections that lead to a standby are given up for others, by every
// verb and by MigrateDB.
func TestStaleConnections(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		db := contract.Open(t, driver, contract.NewDatabase(t))
		useStale(t, db, func() { makeStale(t, db, 6) })
	})

	t.Run("pgxpool", func(t *testing.T) {
		t.Parallel()

		cfg, err := pgxpool.ParseConfig(contract.NewDatabase(t))
		contract.Must(t, err)

		cfg.MaxConns = 4

		pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
		contract.Must(t, err)
		t.Cleanup(pool.Close)

		db := stdlib.OpenDBFromPool(pool)
		t.Cleanup(func() { contract.Must(t, db.Close()) })

		useStale(t, db, func() {
			conns := make([]*pgxpool.Conn, cfg.MaxConns)

			for i := range conns {
				conn, err := pool.Acquire(t.Context())
				contract.Must(t, err)

				_, err = conn.Exec(t.Context(), "SET default_transaction_read_only = on")
				contract.Must(t, err)

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
	contract.Must(t, pglocker.MigrateDB(ctx, db, &pglocker.Config{}))

	locker, err := pglocker.New(db, &pglocker.Config{})
	contract.Must(t, err)
	t.Cleanup(func() { contract.CloseLocker(t, locker) })

	makeStale()

	_, err = locker.CreateLock(ctx, "a")
	contract.Must(t, err)
	makeStale()

	status, err := locker.AcquireLock(ctx, "a", time.Minute)
	contract.Must(t, err)
	makeStale()

	status, err = locker.RefreshLock(ctx, status, time.Minute)
	contract.Must(t, err)
	makeStale()
	contract.Must(t, locker.ReleaseLock(ctx, status))
	makeStale()

	lock, err := locker.Lock(ctx, "a", time.Minute)
	contract.Must(t, err)
	makeStale()
	contract.Must(t, lock.Unlock(ctx))
	makeStale()

	lock, err = locker.TryLock(ctx, "a new one", time.Minute)
	contract.Must(t, err)
	contract.Must(t, lock.Unlock(ctx))
}

// TestNewConnectionsAreStale: a name that leads to several servers may lead to a standby five
// times in a row. A call that doesn't wait tries once more.
func TestNewConnectionsAreStale(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	contract.Must(t, pglocker.MigrateDB(t.Context(), contract.Open(t, "pgx", url), &pglocker.Config{}))

	cfg, err := pgx.ParseConfig(url)
	contract.Must(t, err)

	var stale atomic.Int32

	db := stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		if stale.Add(-1) < 0 {
			return nil
		}

		_, err := conn.Exec(ctx, "SET default_transaction_read_only = on")

		return err
	}))
	t.Cleanup(func() { contract.Must(t, db.Close()) })
	db.SetMaxIdleConns(0) // each request opens a connection

	locker, err := pglocker.New(db, &pglocker.Config{})
	contract.Must(t, err)
	t.Cleanup(func() { contract.CloseLocker(t, locker) })

	stale.Store(5)

	status, err := locker.AcquireLock(t.Context(), "a", time.Minute)
	contract.Must(t, err)
	stale.Store(5)

	status, err = locker.RefreshLock(t.Context(), status, time.Minute)
	contract.Must(t, err)
	stale.Store(5)
	contract.Must(t, locker.ReleaseLock(t.Context(), status))
}
