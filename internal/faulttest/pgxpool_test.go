package faulttest

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// openPool is a handle over a pool of pgx that is changed as the test wants.
func openPool(t *testing.T, url string, change func(*pgxpool.Config), opts ...stdlib.OptionOpenDB) *sql.DB {
	t.Helper()

	cfg, err := pgxpool.ParseConfig(url)
	contract.Must(t, err)
	change(cfg)

	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	contract.Must(t, err)
	t.Cleanup(pool.Close)

	db := stdlib.OpenDBFromPool(pool, opts...)
	t.Cleanup(func() { contract.Must(t, db.Close()) })

	return db
}

// roleWith makes a role of this test alone.
func roleWith(t *testing.T, db *sql.DB, url, grants string) string {
	t.Helper()

	role := fmt.Sprintf("hooked_%d_%d", contract.Query[int](t, db, "SELECT pg_backend_pid()"), time.Now().UnixNano())
	contract.Exec(t, db, "CREATE ROLE "+role)
	t.Cleanup(func() {
		db := contract.Open(t, "pgx", url)
		for _, text := range []string{"DROP OWNED BY " + role, "DROP ROLE " + role} {
			_, err := db.ExecContext(context.Background(), text)
			contract.Must(t, err)
		}
	})
	contract.Exec(t, db, strings.ReplaceAll(grants, "{role}", role))

	return role
}

// hooks are the ways in which a pool of pgx may set up its connections.
var hooks = map[string]func(setUp string) (func(*pgxpool.Config), []stdlib.OptionOpenDB){
	"AfterConnect": func(setUp string) (func(*pgxpool.Config), []stdlib.OptionOpenDB) {
		return func(c *pgxpool.Config) {
			c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
				_, err := conn.Exec(ctx, setUp)

				return err
			}
		}, nil
	},
	// As with a pool whose connections are cleaned after each use.
	"BeforeAcquire": func(setUp string) (func(*pgxpool.Config), []stdlib.OptionOpenDB) {
		return func(c *pgxpool.Config) {
			//lint:ignore SA1019 pools in use have this hook
			c.BeforeAcquire = func(ctx context.Context, conn *pgx.Conn) bool {
				_, err := conn.Exec(ctx, setUp)

				return err == nil
			}
			c.AfterRelease = func(conn *pgx.Conn) bool {
				_, err := conn.Exec(context.Background(), "RESET ALL; RESET ROLE")

				return err == nil
			}
		}, nil
	},
	"PrepareConn": func(setUp string) (func(*pgxpool.Config), []stdlib.OptionOpenDB) {
		return func(c *pgxpool.Config) {
			c.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
				_, err := conn.Exec(ctx, setUp)

				return err == nil, err
			}
		}, nil
	},
	"BeforeConnect": func(setUp string) (func(*pgxpool.Config), []stdlib.OptionOpenDB) {
		return func(c *pgxpool.Config) {
			c.BeforeConnect = func(_ context.Context, cfg *pgx.ConnConfig) error {
				for _, assignment := range strings.Split(setUp, "; ") {
					name, value, _ := strings.Cut(strings.TrimPrefix(assignment, "SET "), " = ")
					cfg.RuntimeParams[name] = strings.Trim(value, "'")
				}

				return nil
			}
		}, nil
	},
}

// TestPoolHooks: renewals, the listener and the spare connection are set up as the pool's
// connections are, which alone have the rights, and see the rows.
func TestPoolHooks(t *testing.T) {
	t.Parallel()

	for name, hook := range hooks {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			const ttl = 3 * time.Second

			url := contract.NewDatabase(t)
			direct := contract.Open(t, "pgx", url)
			contract.Must(t, pglocker.MigrateDB(t.Context(), direct, &pglocker.Config{}))

			// The login is a superuser, to which row-level security doesn't apply. The role sees
			// the rows of its tenant only.
			role := roleWith(t, direct, url, `
				GRANT USAGE ON SCHEMA pglocker TO {role};
				GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO {role};
				ALTER TABLE pglocker.lock_statuses ENABLE ROW LEVEL SECURITY;
				CREATE POLICY tenant ON pglocker.lock_statuses TO {role}
					USING (lock_id LIKE current_setting('app.tenant', true) || '/%')`)

			// Another login, which may do nothing by itself.
			login := roleWith(t, direct, url, "ALTER ROLE {role} LOGIN; GRANT "+role+" TO {role}")
			url = strings.Replace(url, "://postgres@", "://"+login+"@", 1)

			change, opts := hook("SET role = '" + role + "'; SET app.tenant = 'blue'")

			// The first use has the pool's connections, which then are in use.
			const size = 3

			db := openPool(t, url, func(c *pgxpool.Config) {
				c.MaxConns = size
				change(c)
			}, opts...)

			locker, err := pglocker.New(db, &pglocker.Config{})
			contract.Must(t, err)
			t.Cleanup(func() { contract.CloseLocker(t, locker) })

			k := contract.StartTask(t, locker, "blue/a", ttl, ttl/30)

			for range size {
				conn, err := db.Conn(t.Context())
				contract.Must(t, err)

				defer func() { contract.Must(t, conn.Close()) }()
			}

			for range 8 {
				k.AwaitRenewal(t)
			}

			ctx, leave := context.WithCancel(t.Context())
			left := make(chan error, 1)

			go func() {
				_, err := locker.Lock(ctx, "blue/a", ttl)
				left <- err
			}()

			contract.Await(t, "the listener listens", func() bool {
				return contract.Query[bool](t, direct, `SELECT EXISTS (SELECT FROM pg_stat_activity
					WHERE datname = current_database() AND query LIKE 'LISTEN%')`)
			})
			leave()
			contract.Receive(t, "the waiter leaves", left)

			began := time.Now()
			k.Finish(t)

			if took := time.Since(began); took > time.Second/2 {
				t.Errorf("the release took %s", took)
			}

			if contract.Query[bool](t, direct, "SELECT expires_at > clock_timestamp() FROM pglocker.lock_statuses") {
				t.Error("the lock is still held")
			}
		})
	}
}

// TestPoolHooksInPairs: hooks that count connections come out even, and one that refuses
// a connection is asked about another.
func TestPoolHooksInPairs(t *testing.T) {
	t.Parallel()

	var (
		mu    sync.Mutex
		open  = make(map[*pgx.Conn]bool)
		asked int
	)

	db := openPool(t, contract.NewDatabase(t), func(c *pgxpool.Config) {
		c.MaxConns = 2
		c.AfterConnect = func(_ context.Context, conn *pgx.Conn) error {
			mu.Lock()
			defer mu.Unlock()

			open[conn] = true

			return nil
		}
		c.BeforeClose = func(conn *pgx.Conn) {
			mu.Lock()
			defer mu.Unlock()

			delete(open, conn)
		}
		c.PrepareConn = func(context.Context, *pgx.Conn) (bool, error) {
			mu.Lock()
			defer mu.Unlock()

			asked++

			return asked%5 != 0, nil
		}
	})

	locker := contract.NewLockerOver(t, db)
	k := contract.StartTask(t, locker, "a", 3*time.Second, 50*time.Millisecond)

	for range 12 {
		k.AwaitRenewal(t)
	}

	k.Finish(t)
	contract.CloseLocker(t, locker)

	contract.Await(t, "only the pool's connections are left", func() bool {
		mu.Lock()
		defer mu.Unlock()

		return len(open) <= 2
	})
}
