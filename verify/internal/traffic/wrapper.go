package traffic

import (
	"context"
	"database/sql/driver"
)

// wrapped is a driver around lib/pq, as libraries for tracing and metrics have them. It does what
// lib/pq does, and isn't recognized as lib/pq.
type wrapped struct{ driver.Driver }

type wrappedConnector struct{ driver.Connector }

func (w wrappedConnector) Driver() driver.Driver { return wrapped{w.Connector.Driver()} }

func (w wrappedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := w.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}

	return wrappedConn{conn.(pqConn)}, nil
}

// pqConn is what a connection of lib/pq can do.
type pqConn interface {
	driver.Conn
	driver.QueryerContext
	driver.ExecerContext
	driver.ConnBeginTx
	driver.NamedValueChecker
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type wrappedConn struct{ pqConn }
