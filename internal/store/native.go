package store

import (
	"context"
	"database/sql/driver"
	"reflect"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// What this package uses of pgx. It calls pgx through these interfaces alone, finds the values by reflection, and
// imports neither pgx's database/sql driver nor anything that opens a connection. So the linker leaves pgx out of a
// program that doesn't use it: docs/adr/0011. TestWeight notices what would bring it back.
type (
	// pgxConn is a *pgx.Conn.
	pgxConn interface {
		Close(ctx context.Context) error
		Config() *pgx.ConnConfig
		Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
		IsClosed() bool
		PgConn() *pgconn.PgConn
		Ping(ctx context.Context) error
		Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
		SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
		WaitForNotification(ctx context.Context) (*pgconn.Notification, error)
	}
	// pgxPool is a *pgxpool.Pool.
	pgxPool interface {
		Config() *pgxpool.Config
		Stat() *pgxpool.Stat
	}
)

const (
	stdlibPath  = "github.com/jackc/pgx/v5/stdlib"
	pgxpoolPath = "github.com/jackc/pgx/v5/pgxpool"
)

// isPgx reports whether the driver is pgx's.
func isPgx(d driver.Driver) bool { return isType(reflect.TypeOf(d), stdlibPath, "Driver") }

// isType reports whether t is a pointer to that type.
func isType(t reflect.Type, path, name string) bool {
	return t != nil && t.Kind() == reflect.Pointer && t.Elem().PkgPath() == path && t.Elem().Name() == name
}

// pgxConnOf returns the connection in one of pgx's database/sql driver, of a pgxpool.Pool, or beside such a pool, or
// in a transaction of pgx. (A wrapper that embeds one of these passes for it, and is bypassed.)
func pgxConnOf(driverConn any) (pgxConn, bool) {
	if own, ok := driverConn.(*ownConn); ok {
		return own.conn.(pgxConn), true
	}

	method := reflect.ValueOf(driverConn).MethodByName("Conn")
	if !method.IsValid() || method.Type().String() != "func() *pgx.Conn" {
		return nil, false
	}

	found := method.Call(nil)[0]
	if found.IsNil() {
		return nil, false
	}

	conn, ok := found.Interface().(pgxConn)

	return conn, ok
}

// recognized is a connection of pgx in one of database/sql.
type recognized struct {
	driverConn any // a *stdlib.Conn, whose own connection never changes
	own        any // the *pgx.Conn, see pgxConn
}

// pgxConnOf remembers the last connection: it is often the next, too, and reflection takes a twentieth of a lone pair.
// It doesn't remember a wrapper, which may connect anew, or one of a pgxpool.Pool, which is a new one each time.
func (s *Store) pgxConnOf(driverConn any) (pgxConn, bool) {
	if last := s.last.Load(); last != nil && last.driverConn == driverConn {
		return last.own.(pgxConn), true
	}

	own, ok := pgxConnOf(driverConn)
	if ok && isType(reflect.TypeOf(driverConn), stdlibPath, "Conn") {
		s.last.Store(&recognized{driverConn, own})
	}

	return own, ok
}

// pgxPoolOf returns the pool under a connector of stdlib.OpenDBFromPool.
func pgxPoolOf(connector driver.Connector) (pgxPool, bool) {
	v := reflect.ValueOf(connector)
	if v.Kind() != reflect.Struct {
		return nil, false
	}

	field := v.FieldByName("pool")
	if !field.IsValid() || !isType(field.Type(), pgxpoolPath, "Pool") || field.IsNil() {
		return nil, false
	}

	pool, ok := reflect.NewAt(field.Type().Elem(), field.UnsafePointer()).Interface().(pgxPool)

	return pool, ok
}

// conn is a connection in use: a *sql.Conn, or one of a pgxpool.Pool.
type conn interface {
	Raw(use func(driverConn any) error) error
	Close() error
}

// pooled is a connection of a pgxpool.Pool.
type pooled struct{ *pgxpool.Conn }

func (p pooled) Raw(use func(driverConn any) error) error { return use(p.Conn) }

// Close gives it back to the pool, which closes a broken one.
func (p pooled) Close() error {
	p.Release()

	return nil
}
