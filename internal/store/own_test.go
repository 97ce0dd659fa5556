package store_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// wrapped is a driver around another, as tracing libraries have it.
type wrapped struct{ driver.Driver }

func init() { sql.Register("wrapped", wrapped{new(pq.Driver)}) }

// closer is a connector that can tell whether it was closed.
type closer struct {
	driver.Connector
	closed *atomic.Int32
}

func (c closer) Close() error {
	c.closed.Add(1)

	return nil
}

// scanOver reads a row as a Store does: by pgx's methods where the connection is pgx's.
func scanOver(ctx context.Context, db *sql.DB, query string, dest ...any) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}

	native := false

	err = conn.Raw(func(driverConn any) error {
		own, ok := store.PgxConnOf(driverConn)
		if native = ok; !ok {
			return nil
		}

		rows, err := own.Query(ctx, query)
		if err != nil {
			return err
		}
		defer rows.Close()

		rows.Next()

		return rows.Scan(dest...)
	})
	if err == nil && !native {
		err = conn.QueryRowContext(ctx, query).Scan(dest...)
	}

	return errors.Join(err, conn.Close())
}

// TestOpenOwn: however a handle was opened, another connection can be had while
// its pool is exhausted, made by the same connector.
func TestOpenOwn(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()

	// named gives a connection a name as an application's own hook would.
	named := func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SET application_name = 'named by a hook'")

		return err
	}

	var closed atomic.Int32

	// canBeNamed are those whose connector takes a name, if the hook doesn't set one.
	canBeNamed := map[string]bool{
		"pgx, sql.Open": true, "pgx, pgx/v5": true, "lib/pq, sql.Open": true,
	}

	for name, open := range map[string]func(t *testing.T) *sql.DB{
		"pgx, sql.Open":     func(t *testing.T) *sql.DB { return contract.Open(t, "pgx", url) },
		"pgx, pgx/v5":       func(t *testing.T) *sql.DB { return contract.Open(t, "pgx/v5", url) },
		"lib/pq, sql.Open":  func(t *testing.T) *sql.DB { return contract.Open(t, "postgres", url) },
		"wrapped, sql.Open": func(t *testing.T) *sql.DB { return contract.Open(t, "wrapped", url) },
		"pgx, stdlib.OpenDB": func(t *testing.T) *sql.DB {
			cfg, err := pgx.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}

			return stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(named))
		},
		"pgx, stdlib.OpenDBFromPool": func(t *testing.T) *sql.DB {
			cfg, err := pgxpool.ParseConfig(url)
			if err != nil {
				t.Fatal(err)
			}

			cfg.MaxConns = 1
			cfg.AfterConnect = named

			pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}

			t.Cleanup(pool.Close)

			return stdlib.OpenDBFromPool(pool)
		},
		"lib/pq, a connector that can be closed": func(t *testing.T) *sql.DB {
			connector, err := pq.NewConnector(url)
			if err != nil {
				t.Fatal(err)
			}

			return sql.OpenDB(closer{connector, &closed})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			db := open(t)
			db.SetMaxOpenConns(1)

			conn, err := db.Conn(ctx)
			if err != nil {
				t.Fatal(err)
			}

			var backend, ownBackend int

			var appName, ownAppName string

			const look = "SELECT pg_backend_pid(), current_setting('application_name')"

			if err := conn.QueryRowContext(ctx, look).Scan(&backend, &appName); err != nil {
				t.Fatal(err)
			}

			own, ok := store.New(db, store.Table{}, nil).OpenOwn(name)
			if !ok {
				t.Fatal("no connection of its own")
			}

			if err := scanOver(ctx, own, look, &ownBackend, &ownAppName); err != nil {
				t.Fatal(err)
			}

			if backend == ownBackend {
				t.Error("both handles have the same connection")
			}

			// A name that the user has chosen is kept.
			switch want := name; {
			case appName != "" && ownAppName != appName:
				t.Errorf("the application's connection is %q, the other %q", appName, ownAppName)
			case appName == "" && canBeNamed[name] && ownAppName != want:
				t.Errorf("the server shows it as %q, want %q", ownAppName, want)
			}

			if err := own.Close(); err != nil {
				t.Error(err)
			}

			if n := closed.Load(); n != 0 {
				t.Errorf("the application's connector was closed %d times", n)
			}

			if err := conn.Close(); err != nil {
				t.Error(err)
			}

			// The application's handle still works.
			if err := db.PingContext(ctx); err != nil {
				t.Error(err)
			}

			if err := db.Close(); err != nil {
				t.Error(err)
			}

			if n := closed.Swap(0); n > 1 {
				t.Errorf("the application closed its connector once, it was closed %d times", n)
			}
		})
	}
}
