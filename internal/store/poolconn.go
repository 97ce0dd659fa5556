package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"reflect"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// poolConnector makes connections beside a pgxpool.Pool, with the pool's hooks in the pool's order.
type poolConnector struct {
	driver.Connector
	beforeClose func(*pgx.Conn)
}

// newPoolConnector reads the configuration of the pool and of the handle's connector.
func newPoolConnector(pool *pgxpool.Pool, connector driver.Connector, name string) poolConnector {
	cfg := pool.Config()

	prepare := cfg.PrepareConn
	//lint:ignore SA1019 pools in use have this hook
	if acquire := cfg.BeforeAcquire; prepare == nil {
		prepare = func(ctx context.Context, conn *pgx.Conn) (bool, error) {
			return acquire == nil || acquire(ctx, conn), nil
		}
	}

	connected := func(ctx context.Context, conn *pgx.Conn) error {
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
	}

	resetByUser, _ := fieldOf[afterConnect](reflect.ValueOf(connector), "ResetSession")

	// reset stands for the release after one statement and the acquisition for the next.
	reset := func(ctx context.Context, conn *pgx.Conn) error {
		if cfg.AfterRelease != nil && !cfg.AfterRelease(conn) {
			return driver.ErrBadConn
		}

		if ok, err := prepare(ctx, conn); !ok || err != nil {
			return driver.ErrBadConn
		}

		if resetByUser != nil {
			return resetByUser(ctx, conn)
		}

		return nil
	}

	before := func(ctx context.Context, c *pgx.ConnConfig) error {
		*c = *c.Copy() // the hook may change it in any way

		if cfg.BeforeConnect != nil {
			return cfg.BeforeConnect(ctx, c)
		}

		return nil
	}

	return poolConnector{
		Connector: stdlib.GetConnector(*cfg.ConnConfig,
			stdlib.OptionBeforeConnect(naming(name, before)),
			stdlib.OptionAfterConnect(closing(connected)),
			stdlib.OptionResetSession(reset)),
		beforeClose: cfg.BeforeClose,
	}
}

var errRefusedByHook = errors.New("pglocker: the pool's hook PrepareConn or BeforeAcquire refuses a new connection")

func (c poolConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if own, ok := conn.(*stdlib.Conn); ok && c.beforeClose != nil {
		return &pooledConn{own, c.beforeClose}, err
	}

	return conn, err
}

// pooledConn is a connection whose end a hook is told of.
type pooledConn struct {
	*stdlib.Conn
	beforeClose func(*pgx.Conn)
}

func (c *pooledConn) Close() error {
	c.beforeClose(c.Conn.Conn())

	return c.Conn.Close()
}
