package pglocker_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestPoolExhausted: an application that has its whole pool in use, for as long
// as it likes, keeps its lock and can release it.
func TestPoolExhausted(t *testing.T) {
	const (
		ttl  = 1500 * time.Millisecond
		size = 2
	)

	for name, open := range map[string]func(t *testing.T, url string) *sql.DB{
		"pgx":      func(t *testing.T, url string) *sql.DB { return contract.Open(t, "pgx", url) },
		"postgres": func(t *testing.T, url string) *sql.DB { return contract.Open(t, "postgres", url) },
		"pgxpool": func(t *testing.T, url string) *sql.DB {
			cfg, err := pgxpool.ParseConfig(url)
			must(t, err)

			cfg.MaxConns = size

			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			must(t, err)
			t.Cleanup(pool.Close)

			db := stdlib.OpenDBFromPool(pool)
			t.Cleanup(func() { must(t, db.Close()) })

			return db
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			url := newDatabase(t)
			db := open(t, url)
			db.SetMaxOpenConns(size)

			locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
			must(t, err)
			t.Cleanup(func() { closeLocker(t, locker) })

			k := startTask(t, locker, "a", ttl, ttl/3)

			for range size {
				conn, err := db.Conn(t.Context())
				must(t, err)

				defer func() { must(t, conn.Close()) }()
			}

			for end := time.Now().Add(3 * ttl); time.Now().Before(end); {
				k.awaitRenewal(t)
			}

			began := time.Now()
			k.finish(t)

			if took := time.Since(began); took > ttl/2 {
				t.Errorf("the release took %s", took)
			}

			other := newLocker(t, "pgx", url)
			if _, err := other.AcquireLock(t.Context(), "a", ttl); err != nil {
				t.Errorf("after the release: %v", err)
			}
		})
	}
}

// TestPoolOfOne: one connection is enough for functions that use it themselves,
// under as many locks as they like.
func TestPoolOfOne(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		db := contract.Open(t, driver, newDatabase(t))
		db.SetMaxOpenConns(1)

		locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
		must(t, err)
		t.Cleanup(func() { closeLocker(t, locker) })

		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()

		var tasks sync.WaitGroup

		for i := range 8 {
			tasks.Go(func() {
				err := locker.Do(ctx, fmt.Sprint(i), 10*time.Second, 50*time.Millisecond, func(ctx context.Context) error {
					for range 20 {
						if _, err := db.ExecContext(ctx, "SELECT pg_sleep(0.005)"); err != nil {
							return err
						}
					}

					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}

		tasks.Wait()
	})
}
