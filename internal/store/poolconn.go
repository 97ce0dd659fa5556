package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"math/rand/v2"
	"reflect"
	"time"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// poolUnder is a pgxpool.Pool, by functions: a field of its type would have the linker keep pgx, see [pgxConn].
type poolUnder struct {
	// usage is how many connections are in use, how many there may be, and how many are idle.
	usage func() (used, most, idle int)
	// limit has a handle beside the pool close its connections when the pool would.
	limit func(*sql.DB)
}

func newPoolUnder(pool pgxPool) *poolUnder {
	return &poolUnder{
		usage: func() (used, most, idle int) {
			stat := pool.Stat()

			return int(stat.AcquiredConns()), int(stat.MaxConns()), int(stat.IdleConns())
		},
		limit: func(db *sql.DB) {
			cfg := pool.Config()
			db.SetConnMaxLifetime(cfg.MaxConnLifetime + time.Duration(rand.Float64()*float64(cfg.MaxConnLifetimeJitter)))
			db.SetConnMaxIdleTime(cfg.MaxConnIdleTime)
		},
	}
}

// dialFunc opens a connection, and returns the *pgx.Conn.
type dialFunc func(context.Context, *pgx.ConnConfig) (any, error)

// connectorBeside returns a connector beside the pool of a handle made by stdlib.OpenDBFromPool. given is that
// handle's, which without the pool opens connections by itself.
func connectorBeside(pool pgxPool, given driver.Connector, name string) (driver.Connector, bool) {
	v := reflect.ValueOf(given)

	dial := func(ctx context.Context, cfg *pgx.ConnConfig) (any, error) {
		own := copyOf(v)
		*own.pool() = nil
		*own.config() = *cfg
		*own.before() = func(context.Context, *pgx.ConnConfig) error { return nil }
		*own.after("AfterConnect") = func(context.Context, *pgx.Conn) error { return nil }

		raw, err := own.connector().Connect(ctx)
		if err != nil {
			return nil, err
		}

		conn, ok := pgxConnOf(raw)
		if !ok {
			return nil, errors.Join(errNotPgx, raw.Close())
		}

		return conn, nil
	}

	own := copyOf(v)
	if own.pool() == nil || own.config() == nil || own.before() == nil || own.after("AfterConnect") == nil {
		return nil, false
	}

	var resetByUser afterConnect
	if reset := own.after("ResetSession"); reset != nil {
		resetByUser = *reset
	}

	return newPoolConnector(pool.Config(), dial, resetByUser, name), true
}

// pool has the address of the pool, which the connector doesn't export.
func (c stdlibConnector) pool() *unsafe.Pointer {
	return (*unsafe.Pointer)(c.address("pool", "*pgxpool.Pool"))
}

func (c stdlibConnector) config() *pgx.ConnConfig {
	return (*pgx.ConnConfig)(c.address("ConnConfig", "pgx.ConnConfig"))
}

// poolConnector makes connections beside a pgxpool.Pool, with the pool's hooks in the pool's order. It is its own
// driver.
type poolConnector struct {
	connect func(context.Context) (driver.Conn, error)
}

func (c poolConnector) Connect(ctx context.Context) (driver.Conn, error) { return c.connect(ctx) }
func (c poolConnector) Driver() driver.Driver                            { return c }
func (c poolConnector) Open(string) (driver.Conn, error)                 { return c.connect(context.Background()) }

// newPoolConnector takes a copy of the pool's configuration. resetByUser may be nil.
func newPoolConnector(cfg *pgxpool.Config, dial dialFunc, resetByUser afterConnect, name string) poolConnector {
	prepare := cfg.PrepareConn
	//lint:ignore SA1019 pools in use have this hook
	if acquire := cfg.BeforeAcquire; prepare == nil {
		prepare = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
			return acquire == nil || acquire(ctx, conn), nil
		}
	}

	connected := closing(func(ctx context.Context, conn *pgx.Conn) error {
		if cfg.AfterConnect != nil {
			if err := cfg.AfterConnect(ctx, conn); err != nil {
				return err
			}
		}

		ok, err := prepare(ctx, conn)
		if !ok && err == nil {
			err = errRefusedByHook
		}

		return err
	})

	before := naming(name, func(ctx context.Context, c *pgx.ConnConfig) error {
		if cfg.BeforeConnect != nil {
			return cfg.BeforeConnect(ctx, c)
		}

		return nil
	})

	return poolConnector{func(ctx context.Context) (driver.Conn, error) {
		config := cfg.ConnConfig.Copy() // the hook may change it in any way

		if err := before(ctx, config); err != nil {
			return nil, err
		}

		dialed, err := dial(ctx, config)
		if err != nil {
			return nil, err
		}

		conn := dialed.(*pgx.Conn)
		if err := connected(ctx, conn); err != nil {
			return nil, err
		}

		return &ownConn{
			conn: dialed,
			// reset stands for the release after one statement and the acquisition for the next.
			reset: func(ctx context.Context, idle time.Duration) error {
				if cfg.AfterRelease != nil && !cfg.AfterRelease(conn) {
					return driver.ErrBadConn
				}

				ping := idle > time.Second
				if cfg.ShouldPing != nil {
					ping = cfg.ShouldPing(ctx, pgxpool.ShouldPingParams{Conn: conn, IdleDuration: idle})
				}

				if ping && !alive(ctx, dialed.(pgxConn), cfg.PingTimeout) {
					return driver.ErrBadConn
				}

				if ok, err := prepare(ctx, conn); !ok || err != nil {
					return driver.ErrBadConn
				}

				if resetByUser != nil {
					return resetByUser(ctx, conn)
				}

				return nil
			},
			used: time.Now(),
			closed: func() {
				if cfg.BeforeClose != nil {
					cfg.BeforeClose(conn)
				}
			},
		}, nil
	}}
}

var (
	errRefusedByHook = errors.New("pglocker: the pool's hook PrepareConn or BeforeAcquire refuses a new connection")
	errNotPgx        = errors.New("pglocker: the connection is not one of pgx")
)

func alive(ctx context.Context, conn pgxConn, within time.Duration) bool {
	if within > 0 {
		var cancel context.CancelFunc

		ctx, cancel = context.WithTimeout(ctx, within)
		defer cancel()
	}

	return conn.Ping(ctx) == nil
}

// ownConn is a connection of pgx beside a pool. It is used by pgx's own methods alone.
type ownConn struct {
	conn any // the *pgx.Conn, see pgxConn
	// reset is called before the connection is used again, with how long it was idle.
	reset  func(ctx context.Context, idle time.Duration) error
	closed func()
	// used is when it was last taken into use.
	used time.Time
}

func (c *ownConn) ResetSession(ctx context.Context) error {
	now, conn := time.Now(), c.conn.(pgxConn)

	if conn.IsClosed() || conn.PgConn().TxStatus() != 'I' {
		return driver.ErrBadConn
	}

	idle := now.Sub(c.used)
	c.used = now

	return c.reset(ctx, idle)
}

func (c *ownConn) Close() error {
	c.closed()

	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()

	return c.conn.(pgxConn).Close(ctx)
}

// closeWithin bounds the farewell to the server.
const closeWithin = 5 * time.Second

func (c *ownConn) Prepare(string) (driver.Stmt, error) { return nil, errNative }
func (c *ownConn) Begin() (driver.Tx, error)           { return nil, errNative }

var errNative = errors.New("pglocker: a connection beside a pgxpool.Pool is used by pgx's methods alone")
