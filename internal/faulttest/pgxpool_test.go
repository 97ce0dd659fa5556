package faulttest

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
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

// newPool is a pool of pgx that is changed as the test wants.
func newPool(t *testing.T, url string, change func(*pgxpool.Config)) *pgxpool.Pool {
	t.Helper()

	cfg, err := pgxpool.ParseConfig(url)
	contract.Must(t, err)
	change(cfg)

	pool, err := pgxpool.NewWithConfig(t.Context(), cfg)
	contract.Must(t, err)
	t.Cleanup(pool.Close)

	return pool
}

// openPool is a handle over such a pool.
func openPool(t *testing.T, url string, change func(*pgxpool.Config)) *sql.DB {
	t.Helper()

	db := stdlib.OpenDBFromPool(newPool(t, url, change))
	t.Cleanup(func() { contract.Must(t, db.Close()) })

	return db
}

// overPool are the ways to a locker over a pool, on a table that exists.
var overPool = map[string]func(t *testing.T, pool *pgxpool.Pool) *pglocker.Locker{
	"NewPool": func(t *testing.T, pool *pgxpool.Pool) *pglocker.Locker {
		t.Helper()

		locker, err := pglocker.NewPool(pool, &pglocker.Config{})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

		return locker
	},
	"OpenDBFromPool": func(t *testing.T, pool *pgxpool.Pool) *pglocker.Locker {
		t.Helper()

		db := stdlib.OpenDBFromPool(pool)
		t.Cleanup(func() { contract.Must(t, db.Close()) })

		return contract.WatchedLocker(t, db, nil)
	},
}

// useUp takes all connections of a pool, until the test ends.
func useUp(t *testing.T, pool *pgxpool.Pool) {
	t.Helper()

	for range pool.Config().MaxConns {
		conn, err := pool.Acquire(t.Context())
		contract.Must(t, err)
		t.Cleanup(conn.Release)
	}
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
var hooks = map[string]func(setUp string) func(*pgxpool.Config){
	"AfterConnect": func(setUp string) func(*pgxpool.Config) {
		return func(c *pgxpool.Config) {
			c.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
				_, err := conn.Exec(ctx, setUp)

				return err
			}
		}
	},
	// As with a pool whose connections are cleaned after each use.
	"BeforeAcquire": func(setUp string) func(*pgxpool.Config) {
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
		}
	},
	"PrepareConn": func(setUp string) func(*pgxpool.Config) {
		return func(c *pgxpool.Config) {
			c.PrepareConn = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
				_, err := conn.Exec(ctx, setUp)

				return err == nil, err
			}
		}
	},
	"BeforeConnect": func(setUp string) func(*pgxpool.Config) {
		return func(c *pgxpool.Config) {
			c.BeforeConnect = func(_ context.Context, cfg *pgx.ConnConfig) error {
				for _, assignment := range strings.Split(setUp, "; ") {
					name, value, _ := strings.Cut(strings.TrimPrefix(assignment, "SET "), " = ")
					cfg.RuntimeParams[name] = strings.Trim(value, "'")
				}

				return nil
			}
		}
	},
}

// TestPoolHooks: renewals, the listener and the spare connection are set up as the pool's
// connections are, which alone have the rights, and see the rows.
func TestPoolHooks(t *testing.T) {
	t.Parallel()

	for name, hook := range hooks {
		for way, over := range overPool {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()
				underHook(t, hook, over)
			})
		}
	}
}

func underHook(t *testing.T, hook func(setUp string) func(*pgxpool.Config), over func(*testing.T, *pgxpool.Pool) *pglocker.Locker) {
	t.Helper()

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

	change := hook("SET role = '" + role + "'; SET app.tenant = 'blue'")

	pool := newPool(t, url, func(c *pgxpool.Config) {
		c.MaxConns = 3
		change(c)
	})
	locker := over(t, pool)
	k := contract.StartTask(t, locker, "blue/a", ttl, ttl/30)

	useUp(t, pool)

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
}

// TestPoolHooksInPairs: hooks that count connections come out even, and one that refuses
// a connection is asked about another.
func TestPoolHooksInPairs(t *testing.T) {
	t.Parallel()

	for way, over := range overPool {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			inPairs(t, over)
		})
	}
}

func inPairs(t *testing.T, over func(*testing.T, *pgxpool.Pool) *pglocker.Locker) {
	t.Helper()

	var (
		mu    sync.Mutex
		open  = make(map[*pgx.Conn]bool)
		asked int
	)

	url := contract.NewDatabase(t)
	contract.Must(t, pglocker.MigrateDB(t.Context(), contract.Open(t, "pgx", url), &pglocker.Config{}))

	pool := newPool(t, url, func(c *pgxpool.Config) {
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

	locker := over(t, pool)
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

// TestPoolLimits: statements are the pool's, within its limit and counted by it. A connection beside it is closed
// when the pool would close it, and the next is opened in the same way.
func TestPoolLimits(t *testing.T) {
	t.Parallel()

	for way, over := range overPool {
		t.Run(way, func(t *testing.T) {
			t.Parallel()

			url := contract.NewDatabase(t)
			direct := contract.Open(t, "pgx", url)
			contract.Must(t, pglocker.MigrateDB(t.Context(), direct, &pglocker.Config{}))

			pool := newPool(t, url, func(c *pgxpool.Config) {
				c.MaxConns = 2
				c.MaxConnLifetime = time.Second
			})
			locker := over(t, pool)

			k := contract.StartTask(t, locker, "a", time.Minute, 20*time.Millisecond)

			if pool.Stat().AcquireCount() == 0 {
				t.Error("the pool gave no connection for the grant")
			}

			// Within the second connection's time the first is closed.
			seen := make(map[int]bool)

			contract.Await(t, "renewals go over a second connection", func() bool {
				k.AwaitRenewal(t)

				for pid := range strings.SplitSeq(contract.Query[string](t, direct, `SELECT coalesce(string_agg(pid::text, ','), '0')
					FROM pg_stat_activity WHERE application_name = 'pglocker renew' AND datname = current_database()`), ",") {
					n, err := strconv.Atoi(pid)
					contract.Must(t, err)

					seen[n] = n != 0
				}

				delete(seen, 0)

				return len(seen) > 1
			})

			if most, there := pool.Stat().MaxConns(), pool.Stat().TotalConns(); there > most {
				t.Errorf("%d connections in a pool of %d", there, most)
			}

			k.Finish(t)

			contract.Await(t, "the pool has its connections back", func() bool { return pool.Stat().AcquiredConns() == 0 })
		})
	}
}

// TestClosedPool: a call that waits for a lock doesn't wait for a pool that was closed to open again.
func TestClosedPool(t *testing.T) {
	t.Parallel()

	for way, over := range overPool {
		t.Run(way, func(t *testing.T) {
			t.Parallel()

			url := contract.NewDatabase(t)
			db := contract.Open(t, "pgx", url)

			_, err := contract.NewLockerOn(t, db).AcquireLock(t.Context(), "a", 5*time.Second)
			contract.Must(t, err)

			pool := newPool(t, url, func(*pgxpool.Config) {})
			locker := over(t, pool)
			returned := make(chan error, 1)

			go func() { returned <- contract.Second(locker.Lock(t.Context(), "a", time.Minute)) }()

			contract.Await(t, "the call waits", func() bool {
				return contract.Query[bool](t, db, "SELECT contended_until IS NOT NULL FROM pglocker.lock_statuses")
			})
			pool.Close()

			if err := contract.Receive(t, "Lock returns", returned); err == nil || !strings.Contains(err.Error(), "closed pool") {
				t.Errorf("Lock: %v", err)
			}
		})
	}
}
