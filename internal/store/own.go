package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"maps"
	"os"
	"reflect"
	"strings"
	"unsafe"

	"github.com/jackc/pgx/v5"
)

// How the server shows connections of a Locker's own.
const (
	RenewName   = "pglocker renew"
	ReleaseName = "pglocker release"
	ListenName  = "pglocker listen"
)

// OpenOwn returns a database handle on the same server, with the credentials and connection hooks
// of the Store's, that opens one connection at most and not out of its pool: renewals must go out while the
// application uses all of that. The caller closes it. It is false where the driver can't be asked.
// The server shows the connection under name, unless the user has chosen another. See
// docs/adr/0001.
func (s *Store) OpenOwn(name string) (*sql.DB, bool) {
	connector, ok := s.handle.connector(name)
	if !ok {
		return nil, false
	}

	own := sql.OpenDB(borrowedConnector{connector})
	own.SetMaxOpenConns(1)

	if s.handle.under != nil {
		s.handle.under.limit(own)
	}

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
		return connectorBeside(pool, connector, name)
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

// opensPgx reports whether all connections of db are made by pgx's package stdlib itself.
func opensPgx(db *sql.DB) bool {
	connector, ok := rawConnectorOf(db)
	if !ok {
		return false
	}

	t := reflect.TypeOf(connector)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}

	return t.PkgPath() == stdlibPath
}

// Hooks of pgx, in the forms of its package stdlib.
type (
	beforeConnect = func(context.Context, *pgx.ConnConfig) error
	afterConnect  = func(context.Context, *pgx.Conn) error
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

// naming calls a connection of pgx name, unless it has a name. The hook may change that. One that listens keeps its
// notifications for itself: pgx gives them to OnNotification alone, where that is set.
func naming(name string, before beforeConnect) beforeConnect {
	return func(ctx context.Context, cfg *pgx.ConnConfig) error {
		if cfg.RuntimeParams["application_name"] == "" {
			params := make(map[string]string)
			maps.Copy(params, cfg.RuntimeParams)
			params["application_name"] = name
			cfg.RuntimeParams = params
		}

		err := before(ctx, cfg)

		if name == ListenName {
			cfg.OnNotification = nil
		}

		return err
	}
}

// isPq reports whether the driver is lib/pq, which is not imported. It parses a statement with
// arguments in one message and runs it in another, see [way]. Without arguments it sends one message.
func isPq(d driver.Driver) bool { return fmt.Sprintf("%T", d) == "*pq.Driver" }

// named returns the connector with a name for its connections where the user has chosen none. It
// knows those of pgx, and that of lib/pq for a handle made by sql.Open.
func named(connector driver.Connector, name string) driver.Connector {
	v := reflect.ValueOf(connector)

	switch {
	case v.Kind() == reflect.Struct && v.Type().PkgPath() == stdlibPath:
		own := copyOf(v)
		before, after := own.before(), own.after("AfterConnect")

		if before == nil || *before == nil || after == nil || *after == nil {
			return connector
		}

		*before, *after = naming(name, *before), closing(*after)

		return own.connector()
	case v.Kind() == reflect.Pointer && v.Type().Elem().PkgPath() == stdlibPath:
		dsn := v.Elem().FieldByName("name")
		if dsn.Kind() != reflect.String || strings.HasPrefix(dsn.String(), "registeredConnConfig") {
			return connector
		}

		return byDSN{connector, pgxDSN(dsn.String(), name)}
	case v.Kind() == reflect.Struct && v.Type().String() == "sql.dsnConnector" &&
		isPq(connector.Driver()):
		dsn := v.FieldByName("dsn")
		if dsn.Kind() != reflect.String {
			return connector
		}

		return byDSN{connector, pqDSN(dsn.String(), name)}
	}

	return connector
}

// stdlibConnector is a copy of a connector of package stdlib, whose type isn't exported. Its fields are read and
// set by their addresses: a conversion to any would have the linker keep all of pgx.
type stdlibConnector struct{ reflect.Value }

func copyOf(v reflect.Value) stdlibConnector {
	own := reflect.New(v.Type()).Elem()
	own.Set(v)

	return stdlibConnector{own}
}

func (c stdlibConnector) connector() driver.Connector { return c.Interface().(driver.Connector) }

// address returns that of a field, or nil if there is none of that type.
func (c stdlibConnector) address(name, kind string) unsafe.Pointer {
	field := c.FieldByName(name)
	if !field.IsValid() || field.Type().String() != kind {
		return nil
	}

	return unsafe.Pointer(field.UnsafeAddr())
}

func (c stdlibConnector) before() *beforeConnect {
	return (*beforeConnect)(c.address("BeforeConnect", "func(context.Context, *pgx.ConnConfig) error"))
}

// after returns the hook AfterConnect or ResetSession.
func (c stdlibConnector) after(name string) *afterConnect {
	return (*afterConnect)(c.address(name, "func(context.Context, *pgx.Conn) error"))
}

// byDSN opens connections as sql.Open with that string does.
type byDSN struct {
	driver.Connector
	dsn string
}

func (c byDSN) Connect(ctx context.Context) (driver.Conn, error) {
	if d, ok := c.Driver().(driver.DriverContext); ok {
		connector, err := d.OpenConnector(c.dsn)
		if err != nil {
			return nil, err
		}

		return connector.Connect(ctx)
	}

	return c.Driver().Open(c.dsn)
}

// pqDSN adds a name to a connection string of lib/pq. A name in the string, in the environment or in
// a service file counts more.
func pqDSN(dsn, name string) string { return namedDSN(dsn, "fallback_application_name", name) }

// pgxDSN does so for pgx, which has no such fallback.
func pgxDSN(dsn, name string) string {
	if strings.Contains(dsn, "application_name") || strings.Contains(dsn, "service") ||
		os.Getenv("PGAPPNAME") != "" || os.Getenv("PGSERVICE") != "" {
		return dsn
	}

	return namedDSN(dsn, "application_name", name)
}

func namedDSN(dsn, key, name string) string {
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
