package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"maps"
	"reflect"
	"strings"
	"unsafe"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// How the server shows connections of a Locker's own.
const (
	RenewName   = "pglocker renew"
	ReleaseName = "pglocker release"
	ListenName  = "pglocker listen"
)

// OpenOwn returns a database handle on the same server, with the credentials and connection hooks
// of db, that opens one connection at most and not out of db's pool: renewals must go out while the
// application uses all of that. The caller closes it. It is false where the driver can't be asked.
// The server shows the connection under name, unless the user has chosen another. See
// docs/adr/0001.
func OpenOwn(db *sql.DB, name string) (*sql.DB, bool) {
	connector, ok := connectorOf(db, name)
	if !ok {
		return nil, false
	}

	own := sql.OpenDB(borrowedConnector{connector})
	own.SetMaxOpenConns(1)

	return own, true
}

// borrowedConnector hides a Close method of the connector, which belongs to the application's handle:
// sql.DB.Close would call it.
type borrowedConnector struct{ connector driver.Connector }

func (b borrowedConnector) Connect(ctx context.Context) (driver.Conn, error) {
	return b.connector.Connect(ctx)
}

func (b borrowedConnector) Driver() driver.Driver { return b.connector.Driver() }

// connectorOf returns a connector that makes connections as db's pool does, under a name if it can.
func connectorOf(db *sql.DB, name string) (driver.Connector, bool) {
	connector, ok := rawConnectorOf(db)
	if !ok {
		return nil, false
	}

	if pool, ok := pgxPoolOf(connector); ok {
		return newPoolConnector(pool, connector, name), true
	}

	return named(connector, name), true
}

// rawConnectorOf reads the connector that db was opened with. The field is written once, before the
// handle is handed out, so reading it is no race. It is false if a Go release changes name or type.
func rawConnectorOf(db *sql.DB) (driver.Connector, bool) {
	field := reflect.ValueOf(db).Elem().FieldByName("connector")
	if !field.IsValid() || field.Type() != reflect.TypeFor[driver.Connector]() || field.IsNil() {
		return nil, false
	}

	return *(*driver.Connector)(unsafe.Pointer(field.UnsafeAddr())), true
}

// pgxPoolOf finds the pgxpool.Pool under a handle made by stdlib.OpenDBFromPool.
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

// Hooks of pgx, in the forms of its package stdlib.
type (
	beforeConnect = func(context.Context, *pgx.ConnConfig) error
	afterConnect  = func(context.Context, *pgx.Conn) error
	shouldPing    = func(context.Context, stdlib.ShouldPingParams) bool
)

// closing closes the connection that a hook has failed on. Package stdlib leaves it open.
func closing(hook afterConnect) afterConnect {
	return func(ctx context.Context, conn *pgx.Conn) error {
		err := hook(ctx, conn)
		if err != nil {
			_ = conn.Close(ctx) // the hook's error says more
		}

		return err
	}
}

// naming calls a connection of pgx name, unless it has a name. The hook may change that.
func naming(name string, before beforeConnect) beforeConnect {
	return func(ctx context.Context, cfg *pgx.ConnConfig) error {
		if cfg.RuntimeParams["application_name"] == "" {
			params := make(map[string]string)
			maps.Copy(params, cfg.RuntimeParams)
			params["application_name"] = name
			cfg.RuntimeParams = params
		}

		return before(ctx, cfg)
	}
}

// isPq reports whether the driver is lib/pq, which is not imported. It parses a statement with
// arguments in one message and runs it in another, see [way]. Without arguments it sends one message.
func isPq(d driver.Driver) bool { return fmt.Sprintf("%T", d) == "*pq.Driver" }

const stdlibPath = "github.com/jackc/pgx/v5/stdlib"

// named returns the connector with a name for its connections where the user has chosen none. It
// knows those of pgx, and that of lib/pq for a handle made by sql.Open.
func named(connector driver.Connector, name string) driver.Connector {
	v := reflect.ValueOf(connector)

	switch {
	case v.Kind() == reflect.Struct && v.Type().PkgPath() == stdlibPath:
		cfg, hasConfig := fieldOf[pgx.ConnConfig](v, "ConnConfig")
		before, hasBefore := fieldOf[beforeConnect](v, "BeforeConnect")
		after, hasAfter := fieldOf[afterConnect](v, "AfterConnect")
		reset, hasReset := fieldOf[afterConnect](v, "ResetSession")

		if !hasConfig || !hasBefore || !hasAfter || !hasReset || before == nil || after == nil || reset == nil {
			return connector
		}

		options := []stdlib.OptionOpenDB{
			stdlib.OptionBeforeConnect(naming(name, before)),
			stdlib.OptionAfterConnect(closing(after)),
			stdlib.OptionResetSession(reset),
		}
		if ping, ok := fieldOf[shouldPing](v, "ShouldPing"); ok && ping != nil {
			options = append(options, stdlib.OptionShouldPing(ping))
		}

		return stdlib.GetConnector(cfg, options...)
	case v.Kind() == reflect.Pointer && v.Type().Elem().PkgPath() == stdlibPath:
		dsn := v.Elem().FieldByName("name")
		if dsn.Kind() != reflect.String || strings.HasPrefix(dsn.String(), "registeredConnConfig") {
			return connector
		}

		return pgxByDSN{connector, dsn.String(), name}
	case v.Kind() == reflect.Struct && v.Type().String() == "sql.dsnConnector" &&
		isPq(connector.Driver()):
		dsn := v.FieldByName("dsn")
		if dsn.Kind() != reflect.String {
			return connector
		}

		return pqByDSN{connector, namedDSN(dsn.String(), name)}
	}

	return connector
}

// fieldOf reads an exported field of a struct whose type is not exported.
func fieldOf[T any](v reflect.Value, name string) (value T, ok bool) {
	field := v.FieldByName(name)
	if !field.IsValid() || !field.CanInterface() {
		return value, false
	}

	value, ok = field.Interface().(T)

	return value, ok
}

// pgxByDSN opens connections as sql.Open("pgx", dsn) does, which reads the string and the environment
// again for each.
type pgxByDSN struct {
	driver.Connector
	dsn, name string
}

func (c pgxByDSN) Connect(ctx context.Context) (driver.Conn, error) {
	cfg, err := pgx.ParseConfig(c.dsn)
	if err != nil {
		return c.Connector.Connect(ctx)
	}

	unchanged := func(context.Context, *pgx.ConnConfig) error { return nil }

	return stdlib.GetConnector(*cfg, stdlib.OptionBeforeConnect(naming(c.name, unchanged))).Connect(ctx)
}

// pqByDSN opens connections as sql.Open("postgres", dsn) does.
type pqByDSN struct {
	driver.Connector
	dsn string
}

func (c pqByDSN) Connect(context.Context) (driver.Conn, error) { return c.Driver().Open(c.dsn) }

// namedDSN adds a name to a connection string of lib/pq. A name in the string, in the environment or in
// a service file counts more.
func namedDSN(dsn, name string) string {
	const key = "fallback_application_name"

	switch isURL := strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://"); {
	case strings.Contains(dsn, key) || isURL && strings.Contains(dsn, "#"):
		return dsn
	case !isURL:
		return dsn + " " + key + "='" + name + "'"
	case strings.Contains(dsn, "?"):
		dsn += "&"
	default:
		dsn += "?"
	}

	return dsn + key + "=" + strings.ReplaceAll(name, " ", "%20")
}
