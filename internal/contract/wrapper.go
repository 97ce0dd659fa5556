package contract

import (
	"context"
	"database/sql"
	"database/sql/driver"

	"github.com/jackc/pgx/v5/stdlib"
)

// Drivers around pgx, as libraries for tracing and metrics have them. Their connectors name
// pgx's driver, but their connections are their own.
const (
	// Traced forwards every call.
	Traced = "pgx traced"
	// Opaque forwards the calls that every driver must have, without the context of a
	// statement.
	Opaque = "pgx opaque"
	// Converting forwards statements and converts their arguments to the types that all
	// drivers take.
	Converting = "pgx converting"
)

func init() {
	trace := func(inner *stdlib.Conn) traced { return traced{inner, inner, inner, inner, inner} }

	sql.Register(Traced, wrapper{func(inner *stdlib.Conn) driver.Conn { return trace(inner) }})
	sql.Register(Converting, wrapper{func(inner *stdlib.Conn) driver.Conn { return converting{trace(inner)} }})
	sql.Register(Opaque, wrapper{func(inner *stdlib.Conn) driver.Conn { return opaque{inner, inner} }})
}

type wrapper struct {
	wrap func(*stdlib.Conn) driver.Conn
}

func (w wrapper) Open(url string) (driver.Conn, error) {
	connector, err := w.OpenConnector(url)
	if err != nil {
		return nil, err
	}

	return connector.Connect(context.Background())
}

func (w wrapper) OpenConnector(url string) (driver.Connector, error) {
	inner, err := stdlib.GetDefaultDriver().(driver.DriverContext).OpenConnector(url)

	return wrappedConnector{inner, w.wrap}, err
}

type wrappedConnector struct {
	driver.Connector
	wrap func(*stdlib.Conn) driver.Conn
}

func (w wrappedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := w.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}

	return w.wrap(conn.(*stdlib.Conn)), nil
}

type traced struct {
	driver.Conn
	driver.QueryerContext
	driver.ExecerContext
	driver.ConnBeginTx
	driver.NamedValueChecker
}

type converting struct{ traced }

func (converting) CheckNamedValue(value *driver.NamedValue) (err error) {
	value.Value, err = driver.DefaultParameterConverter.ConvertValue(value.Value)

	return err
}

// opaque prepares each statement, and has its arguments converted.
type opaque struct {
	driver.Conn
	driver.ConnBeginTx
}

func (o opaque) Prepare(text string) (driver.Stmt, error) {
	stmt, err := o.Conn.Prepare(text)
	if err != nil {
		return nil, err
	}

	return opaqueStmt{stmt.(*stdlib.Stmt)}, nil
}

type opaqueStmt struct{ *stdlib.Stmt }

func (o opaqueStmt) ExecContext(_ context.Context, args []driver.NamedValue) (driver.Result, error) {
	return o.Stmt.ExecContext(context.Background(), args)
}

func (o opaqueStmt) QueryContext(_ context.Context, args []driver.NamedValue) (driver.Rows, error) {
	return o.Stmt.QueryContext(context.Background(), args)
}
