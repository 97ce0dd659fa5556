package pglocker_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// lockersOverPool are the ways in which a Locker listens by the configuration of a pool. With RenewDB it listens on
// the pool's own connections.
func lockersOverPool(t *testing.T, url string, pool *pgxpool.Pool) map[string]func(*pglocker.Config) (*pglocker.Locker, error) {
	t.Helper()

	db := stdlib.OpenDBFromPool(pool)
	t.Cleanup(func() { contract.Must(t, db.Close()) })

	return map[string]func(*pglocker.Config) (*pglocker.Locker, error){
		"NewPool":        func(cfg *pglocker.Config) (*pglocker.Locker, error) { return pglocker.NewPool(pool, cfg) },
		"OpenDBFromPool": func(cfg *pglocker.Config) (*pglocker.Locker, error) { return pglocker.New(db, cfg) },
		"RenewDB": func(cfg *pglocker.Config) (*pglocker.Locker, error) {
			cfg.RenewDB = db

			return pglocker.New(contract.Open(t, "pgx", url), cfg)
		},
	}
}

// TestOnNotification: a pool whose connections give notifications to a function of the application has waiters,
// too. Where the connection is the Locker's own, they hear of releases. Otherwise they poll.
func TestOnNotification(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	direct := contract.Open(t, "pgx", url)
	holder := contract.NewLocker(t, "pgx", url)

	cfg, err := pgxpool.ParseConfig(url)
	contract.Must(t, err)

	cfg.ConnConfig.OnNotification = func(*pgconn.PgConn, *pgconn.Notification) {}

	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	contract.Must(t, err)
	t.Cleanup(pool.Close)

	for way, open := range lockersOverPool(t, url, pool) {
		var told contract.Page

		locker, err := open(&pglocker.Config{Logger: slog.New(slog.NewTextHandler(&told, nil))})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

		lock, err := holder.TryLock(t.Context(), way, time.Minute)
		contract.Must(t, err)

		granted := make(chan error, 1)

		go func() {
			next, err := locker.Lock(t.Context(), way, time.Minute)
			if err == nil {
				err = next.Unlock(t.Context())
			}

			granted <- err
		}()

		if way == "RenewDB" {
			contract.Await(t, way+": it is said that the waiter polls", func() bool {
				return strings.Contains(told.String(), "OnNotification is set")
			})
		} else {
			// The mark of a waiter that hears of releases lasts longer.
			contract.Await(t, way+": the waiter hears", func() bool {
				return contract.Query[bool](t, direct, `SELECT coalesce(contended_until > clock_timestamp() + interval '5 s', false)
					FROM pglocker.lock_statuses WHERE lock_id = $1`, way)
			})
		}

		contract.Must(t, lock.Unlock(t.Context()))
		contract.Must(t, contract.Receive(t, way+": the waiter has the lock", granted))
	}
}

// TestNoPooledConnectionListens: a connection that has listened isn't given to the application.
func TestNoPooledConnectionListens(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	direct := contract.Open(t, "pgx", url)
	holder := contract.NewLocker(t, "pgx", url)

	pool, err := pgxpool.New(t.Context(), named(url, "pool"))
	contract.Must(t, err)
	t.Cleanup(pool.Close)

	for way, open := range lockersOverPool(t, url, pool) {
		locker, err := open(&pglocker.Config{})
		contract.Must(t, err)

		lock, err := holder.TryLock(t.Context(), way, time.Minute)
		contract.Must(t, err)

		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)

		go func() {
			_, err := locker.Lock(ctx, way, time.Minute)
			left <- err
		}()

		contract.Await(t, way+": the waiter listens", func() bool {
			return contract.Query[bool](t, direct, `SELECT EXISTS (SELECT FROM pg_stat_activity
				WHERE datname = current_database() AND application_name = 'pool' AND query LIKE 'LISTEN%')`)
		})
		leave()

		if err := contract.Receive(t, way+": the waiter leaves", left); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Lock: %v, want context.Canceled", way, err)
		}

		contract.Must(t, locker.Close(t.Context()))

		for _, conn := range pool.AcquireAllIdle(t.Context()) {
			var channels []string

			contract.Must(t, conn.QueryRow(t.Context(), "SELECT array(SELECT pg_listening_channels())").Scan(&channels))
			conn.Release()

			if len(channels) > 0 {
				t.Errorf("%s: a connection of the pool listens on %q", way, channels)
			}
		}

		contract.Must(t, lock.Unlock(t.Context()))
	}
}
