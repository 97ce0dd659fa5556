package faulttest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/contract"
)

// closedDriver hands out connections of a pool that nobody can ask anything.
type closedDriver struct{ pool driver.Connector }

func (c closedDriver) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.pool.Connect(ctx)
	if err != nil {
		return nil, err
	}

	return closedConn{conn}, nil
}

func (c closedDriver) Driver() driver.Driver { return c }

func (c closedDriver) Open(string) (driver.Conn, error) { return c.Connect(context.Background()) }

// closedConn has what every connection has.
type closedConn struct{ driver.Conn }

func (c closedConn) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, text, args)
}

// TestReleaseWithPoolExhausted: a release is made at once over another connection where a
// pool under the handle is used up, whether it can be asked or not.
func TestReleaseWithPoolExhausted(t *testing.T) {
	t.Parallel()

	const (
		ttl  = 30 * time.Second
		soon = beside.AttemptMax - time.Second // an attempt that waited for the pool would take AttemptMax
	)

	for name, open := range map[string]func(t *testing.T, url string) (*sql.DB, *pglocker.Config){
		"pgxpool": func(t *testing.T, url string) (*sql.DB, *pglocker.Config) {
			return openPool(t, url, func(c *pgxpool.Config) { c.MaxConns = 2 }), &pglocker.Config{}
		},
		"wrapped": func(t *testing.T, url string) (*sql.DB, *pglocker.Config) {
			cfg, err := pgxpool.ParseConfig(url)
			contract.Must(t, err)

			cfg.MaxConns = 2

			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			contract.Must(t, err)
			t.Cleanup(pool.Close)

			db := sql.OpenDB(closedDriver{stdlib.GetPoolConnector(pool)})
			db.SetMaxIdleConns(0)
			t.Cleanup(func() { contract.Must(t, db.Close()) })

			return db, &pglocker.Config{RenewDB: contract.Open(t, "pgx", url)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			url := contract.NewDatabase(t)
			contract.Must(t, pglocker.MigrateDB(t.Context(), contract.Open(t, "pgx", url), &pglocker.Config{}))

			db, cfg := open(t, url)

			locker, err := pglocker.New(db, cfg)
			contract.Must(t, err)
			t.Cleanup(func() { contract.CloseLocker(t, locker) })

			var locks []*pglocker.Lock

			for i := range 3 {
				lock, err := locker.Lock(t.Context(), fmt.Sprint(i), ttl)
				contract.Must(t, err)

				locks = append(locks, lock)
			}

			for range 2 {
				conn, err := db.Conn(t.Context())
				contract.Must(t, err)

				defer func() { contract.Must(t, conn.Close()) }()
			}

			for _, lock := range locks {
				began := time.Now()
				contract.Must(t, lock.Unlock(t.Context()))

				if took := time.Since(began); took > soon {
					t.Errorf("the release took %s", took)
				}
			}
		})
	}
}
