package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"reflect"
	"unsafe"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// OpenOwn returns a database handle on the same server, with the same
// credentials and connection hooks as db, that opens at most one connection and
// does not take it from db's pool: renewals must go out while the application
// has the whole pool in use. The caller closes it. It is false where the driver
// can't be asked for another connection; renewals then share db's pool.
//
// database/sql knows the connector but has no accessor for it; docs/adr/0001
// weighs the ways around that.
func OpenOwn(db *sql.DB) (*sql.DB, bool) {
	connector, ok := connectorOf(db)
	if !ok {
		return nil, false
	}

	own := sql.OpenDB(borrowedConnector{connector})
	own.SetMaxOpenConns(1)

	return own, true
}

// Connect opens a connection of the pool unless one is open. It returns when ctx ends,
// whatever the driver does.
func (s *Store) Connect(ctx context.Context) error {
	opened := make(chan error, 1)

	s.detached.add()

	go func() {
		defer s.detached.done()

		conn, err := s.db.Conn(ctx)
		if err == nil {
			err = conn.Close() // back to the pool
		}

		opened <- err
	}()

	select {
	case err := <-opened:
		return err
	case <-ctx.Done():
		return ended(ctx)
	}
}

// borrowedConnector hides whatever Close method the connector has: sql.DB.Close
// calls it, but it belongs to the application's handle.
type borrowedConnector struct{ connector driver.Connector }

func (b borrowedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	return b.connector.Connect(ctx)
}

func (b borrowedConnector) Driver() driver.Driver { return b.connector.Driver() }

// connectorOf reads the connector that db was opened with. The field is written
// once, before the handle is handed out, so reading it is no race. Name and type
// are checked: should a Go release change them, the answer is false.
func connectorOf(db *sql.DB) (driver.Connector, bool) {
	field := reflect.ValueOf(db).Elem().FieldByName("connector")
	if !field.IsValid() || field.Type() != reflect.TypeFor[driver.Connector]() || field.IsNil() {
		return nil, false
	}

	connector := *(*driver.Connector)(unsafe.Pointer(field.UnsafeAddr()))

	if pool, ok := pgxPoolOf(connector); ok {
		cfg := pool.Config()

		var opts []stdlib.OptionOpenDB
		if cfg.BeforeConnect != nil {
			opts = append(opts, stdlib.OptionBeforeConnect(cfg.BeforeConnect))
		}

		if cfg.AfterConnect != nil {
			opts = append(opts, stdlib.OptionAfterConnect(cfg.AfterConnect))
		}

		return stdlib.GetConnector(*cfg.ConnConfig, opts...), true
	}

	return connector, true
}

// pgxPoolOf finds the pgxpool.Pool under a handle made by stdlib.OpenDBFromPool,
// whose connector takes connections out of that pool, exhausted or not.
func pgxPoolOf(connector driver.Connector) (*pgxpool.Pool, bool) {
	v := reflect.ValueOf(connector)
	if v.Kind() != reflect.Struct {
		return nil, false
	}

	field := v.FieldByName("pool")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*pgxpool.Pool]() || field.IsNil() {
		return nil, false
	}

	return (*pgxpool.Pool)(field.UnsafePointer()), true
}
