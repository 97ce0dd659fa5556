package faulttest

import (
	"context"
	"database/sql"
	"net"
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

// slowly makes each connection take d to be opened, as one to a cold database does, or
// through a slow handshake. It ends with its context, as those do.
func slowly(cfg *pgx.ConnConfig, d *atomic.Int64) {
	dial := cfg.DialFunc

	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		select {
		case <-time.After(time.Duration(d.Load())):
		case <-ctx.Done():
			return nil, ctx.Err()
		}

		return dial(ctx, network, address)
	}
}

// TestSlowToOpen: a lock is had over connections that take longer to open than a request
// is waited for, is kept and released, and waiters hear of the release.
func TestSlowToOpen(t *testing.T) {
	t.Parallel()

	for name, open := range map[string]func(t *testing.T, url string, d *atomic.Int64) *sql.DB{
		"pgx": func(t *testing.T, url string, d *atomic.Int64) *sql.DB {
			cfg, err := pgx.ParseConfig(url)
			contract.Must(t, err)
			slowly(cfg, d)

			return stdlib.OpenDB(*cfg)
		},
		"pgx, nothing kept": func(t *testing.T, url string, d *atomic.Int64) *sql.DB {
			cfg, err := pgx.ParseConfig(url)
			contract.Must(t, err)
			slowly(cfg, d)

			db := stdlib.OpenDB(*cfg)
			db.SetMaxIdleConns(-1)

			return db
		},
		"pgx, one connection": func(t *testing.T, url string, d *atomic.Int64) *sql.DB {
			cfg, err := pgx.ParseConfig(url)
			contract.Must(t, err)
			slowly(cfg, d)

			db := stdlib.OpenDB(*cfg)
			db.SetMaxOpenConns(1)

			return db
		},
		"pgxpool": func(t *testing.T, url string, d *atomic.Int64) *sql.DB {
			return openPool(t, url, func(c *pgxpool.Config) { slowly(c.ConnConfig, d) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			const ttl = 40 * time.Second

			var (
				delay atomic.Int64
				told  contract.Page
				url   = contract.NewDatabase(t)
			)

			contract.Must(t, pglocker.MigrateDB(t.Context(), contract.Open(t, "pgx", url), &pglocker.Config{}))

			db := open(t, url, &delay)
			t.Cleanup(func() { contract.Must(t, db.Close()) })

			locker := newLockerTelling(t, db, &told)

			if name == "pgx, nothing kept" { // or each look at the table would take as long
				_, err := locker.CreateLock(t.Context(), "a")
				contract.Must(t, err)
			}

			delay.Store(int64(6 * time.Second))

			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()

			lock, err := locker.Lock(ctx, "a", ttl, pglocker.WithRelockInterval(time.Second))
			contract.Must(t, err)

			if name != "pgx" {
				contract.Must(t, lock.Unlock(ctx))

				return
			}

			before := lock.Status().ExpiresAt

			contract.Await(t, "a renewal", func() bool { return lock.Status().ExpiresAt.After(before) })

			got := make(chan error, 1)

			go func() {
				next, err := locker.Lock(ctx, "a", ttl)
				if err == nil {
					err = next.Unlock(ctx)
				}

				got <- err
			}()

			contract.Await(t, "the listener listens", func() bool { return contract.Backends(t, contract.Open(t, "pgx", url), "pglocker listen") == 1 })
			contract.Must(t, lock.Unlock(ctx))
			contract.Must(t, contract.Receive(t, "the waiter has had the lock", got))

			if strings.Contains(told.String(), "lost its connection") {
				t.Errorf("told: %s", told.String())
			}
		})
	}
}
