package faulttest

import (
	"context"
	"database/sql"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestPoolExhausted: an application that has its whole pool in use, for as long
// as it likes, keeps its lock and can release it.
func TestPoolExhausted(t *testing.T) {
	t.Parallel()

	const (
		ttl  = 1500 * time.Millisecond
		size = 2
	)

	for name, open := range map[string]func(t *testing.T, url string) *sql.DB{
		"pgx":      func(t *testing.T, url string) *sql.DB { return contract.Open(t, "pgx", url) },
		"postgres": func(t *testing.T, url string) *sql.DB { return contract.Open(t, "postgres", url) },
		"pgxpool": func(t *testing.T, url string) *sql.DB {
			return openPool(t, url, func(c *pgxpool.Config) { c.MaxConns = size })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			url := contract.NewDatabase(t)
			db := open(t, url)
			db.SetMaxOpenConns(size)

			locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
			contract.Must(t, err)
			t.Cleanup(func() { contract.CloseLocker(t, locker) })

			k := contract.StartTask(t, locker, "a", ttl, ttl/3)

			for range size {
				conn, err := db.Conn(t.Context())
				contract.Must(t, err)

				defer func() { contract.Must(t, conn.Close()) }()
			}

			for end := time.Now().Add(3 * ttl); time.Now().Before(end); {
				k.AwaitRenewal(t)
			}

			began := time.Now()
			k.Finish(t)

			if took := time.Since(began); took > ttl/2 {
				t.Errorf("the release took %s", took)
			}

			other := contract.NewLocker(t, "pgx", url)
			if _, err := other.AcquireLock(t.Context(), "a", ttl); err != nil {
				t.Errorf("after the release: %v", err)
			}
		})
	}
}

// TestRelockerWithPoolExhausted: the same for a lock that is kept alive by a status
// that shows no owner, which is looked at before the first renewal.
func TestRelockerWithPoolExhausted(t *testing.T) {
	t.Parallel()

	const ttl = 1500 * time.Millisecond

	for _, test := range []struct {
		name    string
		columns string // none: six
		known   bool   // the locker has looked at the table
	}{
		{"three columns", contract.ThreeColumns, true},
		{"three columns, at first", contract.ThreeColumns, false},
		{"six columns", "", true},
		{"six columns, at first", "", false},
	} {
		contract.EachDriver(t, func(t *testing.T, driver string) {
			t.Parallel()
			t.Run(test.name, func(t *testing.T) {
				url := contract.NewDatabase(t)
				direct := contract.Open(t, driver, url)
				cfg := &pglocker.Config{}
				cfg.SetDefault()

				contract.MakeTable(t, direct, test.columns)

				db := contract.Open(t, driver, url)
				db.SetMaxOpenConns(1)

				other, err := pglocker.New(direct, cfg)
				contract.Must(t, err)
				t.Cleanup(func() { contract.CloseLocker(t, other) })

				locker, err := pglocker.New(db, cfg)
				contract.Must(t, err)
				t.Cleanup(func() { contract.CloseLocker(t, locker) })

				status, err := other.AcquireLock(t.Context(), "a", ttl)
				contract.Must(t, err)

				if test.known {
					_, err := locker.GetLockStatus(t.Context(), "a")
					contract.Must(t, err)
				}

				conn, err := db.Conn(t.Context())
				contract.Must(t, err)

				defer func() { contract.Must(t, conn.Close()) }()

				status.Owner = ""
				ctx, stop := context.WithCancel(t.Context())
				returned := make(chan error, 1)

				go func() { returned <- locker.StartRelocker(ctx, status, ttl, ttl/3) }()

				for end, last := time.Now().Add(3*ttl), status.ExpiresAt; time.Now().Before(end); {
					contract.Await(t, "a renewal", func() bool {
						select {
						case err := <-returned:
							t.Fatalf("StartRelocker: %v", err)
						default:
						}

						seen, err := other.GetLockStatus(t.Context(), "a")
						contract.Must(t, err)

						defer func() { last = seen.ExpiresAt }()

						return seen.ExpiresAt.After(last)
					})
				}

				stop()
				contract.Must(t, contract.Receive(t, "StartRelocker returns", returned))

				_, err = other.AcquireLock(t.Context(), "a", ttl)
				contract.Must(t, err)
			})
		})
	}
}

// TestReleaseOverASlowConnection: a release that needs a connection of its own gets it, though
// opening one takes longer than the release waits for one answer.
func TestReleaseOverASlowConnection(t *testing.T) {
	t.Parallel()

	const (
		ttl  = 4 * time.Second
		slow = ttl/4 + ttl/20
	)

	cfg, err := pgx.ParseConfig(contract.NewDatabase(t))
	contract.Must(t, err)

	var (
		ctx  = t.Context()
		dial = cfg.DialFunc
		late atomic.Bool
	)

	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if late.Load() {
			select {
			case <-time.After(slow):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}

		return dial(ctx, network, address)
	}

	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(1)

	locker := contract.NewLockerOver(t, db)

	lock, err := locker.Lock(ctx, "a", ttl)
	contract.Must(t, err)

	conn, err := db.Conn(ctx) // the whole pool
	contract.Must(t, err)

	defer func() { contract.Must(t, conn.Close()) }()

	late.Store(true)
	contract.Must(t, lock.Unlock(ctx))
}

// TestPoolOfOne: one connection is enough for functions that use it themselves,
// under as many locks as they like.
func TestPoolOfOne(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		db := contract.Open(t, driver, contract.NewDatabase(t))
		db.SetMaxOpenConns(1)

		locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

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
