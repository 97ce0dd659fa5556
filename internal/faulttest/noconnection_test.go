package faulttest

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestNoFreeConnection: a request that got no connection says so, and that nothing was
// sent, whether the table was looked at before or not.
func TestNoFreeConnection(t *testing.T) {
	t.Parallel()

	for name, open := range map[string]func(t *testing.T, url string) *sql.DB{
		"pgx":      func(t *testing.T, url string) *sql.DB { return contract.Open(t, "pgx", url) },
		"postgres": func(t *testing.T, url string) *sql.DB { return contract.Open(t, "postgres", url) },
		"pgxpool": func(t *testing.T, url string) *sql.DB {
			return openPool(t, url, func(c *pgxpool.Config) { c.MaxConns = 2 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			url := contract.NewDatabase(t)
			contract.Must(t, pglocker.MigrateDB(t.Context(), contract.Open(t, "pgx", url), &pglocker.Config{}))

			db := open(t, url)
			if name != "pgxpool" {
				db.SetMaxOpenConns(2)
			}

			locker, err := pglocker.New(db, &pglocker.Config{})
			contract.Must(t, err)
			t.Cleanup(func() { contract.CloseLocker(t, locker) })

			for _, when := range []string{"at first", "later"} {
				var conns []*sql.Conn

				for range 2 {
					conn, err := db.Conn(t.Context())
					contract.Must(t, err)

					conns = append(conns, conn)
				}

				for verb, ask := range map[string]func(ctx context.Context) error{
					"AcquireLock":   func(ctx context.Context) error { return contract.Second(locker.AcquireLock(ctx, "a", time.Minute)) },
					"TryLock":       func(ctx context.Context) error { return contract.Second(locker.TryLock(ctx, "a", time.Minute)) },
					"Lock":          func(ctx context.Context) error { return contract.Second(locker.Lock(ctx, "a", time.Minute)) },
					"GetLockStatus": func(ctx context.Context) error { return contract.Second(locker.GetLockStatus(ctx, "a")) },
					"ReleaseLock": func(ctx context.Context) error {
						return locker.ReleaseLock(ctx, &pglocker.LockStatus{LockID: "a", Generation: 2})
					},
				} {
					ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
					err := ask(ctx)

					cancel()

					if errors.Is(err, pglocker.ErrUnknownOutcome) || !errors.Is(err, context.DeadlineExceeded) ||
						!strings.Contains(err.Error(), "no free connection in the pool (2 of 2 in use)") {
						t.Errorf("%s, %s: %v", verb, when, err)
					}
				}

				for _, conn := range conns {
					contract.Must(t, conn.Close())
				}

				_, err := locker.CreateLock(t.Context(), "a")
				contract.Must(t, err)
			}
		})
	}
}

// TestProbeWithoutAConnection: a listener that can't be tried since the pool is used up
// is not said to be behind a pooler.
func TestProbeWithoutAConnection(t *testing.T) {
	t.Parallel()

	var told contract.Page

	url := contract.NewDatabase(t)
	direct := contract.Open(t, "pgx", url)
	contract.Must(t, pglocker.MigrateDB(t.Context(), direct, &pglocker.Config{}))

	db := contract.Open(t, "pgx", url)
	db.SetMaxOpenConns(2)

	locker := newLockerTelling(t, db, &told)
	_, err := locker.AcquireLock(t.Context(), "a", time.Minute)
	contract.Must(t, err)

	var conns []*sql.Conn

	for range 2 {
		conn, err := db.Conn(t.Context())
		contract.Must(t, err)

		conns = append(conns, conn)
	}

	ctx, leave := context.WithCancel(t.Context())
	left := make(chan error, 1)

	go func() {
		_, err := locker.TryLock(ctx, "a", time.Minute, pglocker.WithWait(time.Minute))
		left <- err
	}()

	// The first request is given up after five seconds, and then the caller is in line.
	contract.Await(t, "it is said what is in the way", func() bool {
		return strings.Contains(told.String(), "no free connection in the pool (2 of 2 in use)")
	})

	if strings.Contains(told.String(), "pooler") {
		t.Errorf("told: %s", told.String())
	}

	leave()
	contract.Receive(t, "the waiter leaves", left)

	for _, conn := range conns {
		contract.Must(t, conn.Close())
	}
}

// misspelling has the server refuse whatever is to listen.
type misspelling struct{ net.Conn }

func (m misspelling) Write(b []byte) (int, error) {
	return m.Conn.Write(bytes.ReplaceAll(b, []byte("LISTEN "), []byte("LESTEN ")))
}

// TestListenRefused: where LISTEN is refused, waiting is by polling, and it is said once.
func TestListenRefused(t *testing.T) {
	t.Parallel()

	var told contract.Page

	url := contract.NewDatabase(t)
	other := contract.NewLocker(t, "pgx", url)

	cfg, err := pgx.ParseConfig(url)
	contract.Must(t, err)

	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)

		return misspelling{conn}, err
	}

	db := stdlib.OpenDB(*cfg)
	t.Cleanup(func() { contract.Must(t, db.Close()) })

	locker, err := pglocker.New(db, &pglocker.Config{
		Logger: slog.New(slog.NewTextHandler(&told, nil)),
	})
	contract.Must(t, err)
	t.Cleanup(func() { contract.CloseLocker(t, locker) })

	for range 3 {
		held, err := other.TryLock(t.Context(), "a", time.Minute)
		contract.Must(t, err)

		got := make(chan error, 1)

		go func() {
			lock, err := locker.Lock(t.Context(), "a", time.Minute)
			if err == nil {
				err = lock.Unlock(t.Context())
			}

			got <- err
		}()

		contract.Await(t, "it is said that waiting is by polling", func() bool {
			return strings.Contains(told.String(), "waiting by polling") && strings.Contains(told.String(), "refuses LISTEN")
		})
		contract.Must(t, held.Unlock(t.Context()))
		contract.Must(t, contract.Receive(t, "the lock", got))
	}

	if text := told.String(); strings.Count(text, "\n") != 1 || !strings.Contains(text, "level=INFO") {
		t.Errorf("told: %s", text)
	}
}
