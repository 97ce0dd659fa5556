package contract

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/lib/pq"
)

// Drivers around lib/pq, which hide that.
const (
	// TracedPq forwards every call.
	TracedPq = "postgres traced"
	// OpaquePq can only prepare statements.
	OpaquePq = "postgres opaque"
)

func init() {
	sql.Register(TracedPq, pqWrapper{func(inner pqConn) driver.Conn { return tracedPq{inner} }})
	sql.Register(OpaquePq, pqWrapper{func(inner pqConn) driver.Conn { return opaquePq{inner, inner} }})
}

// pqConn has the methods of lib/pq's connections.
type pqConn interface {
	driver.Conn
	driver.QueryerContext
	driver.ExecerContext
	driver.ConnBeginTx
}

type tracedPq struct{ pqConn }

type opaquePq struct {
	driver.Conn
	driver.ConnBeginTx
}

type pqWrapper struct{ wrap func(pqConn) driver.Conn }

func (w pqWrapper) Open(url string) (driver.Conn, error) {
	connector, err := w.OpenConnector(url)
	if err != nil {
		return nil, err
	}

	return connector.Connect(context.Background())
}

func (w pqWrapper) OpenConnector(url string) (driver.Connector, error) {
	inner, err := pq.NewConnector(url)

	return pqConnector{w, inner}, err
}

type pqConnector struct {
	pqWrapper
	inner driver.Connector
}

func (c pqConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.inner.Connect(ctx)
	if err != nil {
		return nil, err
	}

	return c.wrap(conn.(pqConn)), nil
}

func (c pqConnector) Driver() driver.Driver { return c.pqWrapper }
