package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

// way is how statements travel over connections that aren't pgx's own.
//
// Behind a pooler in transaction mode only what is sent in one message, or in one transaction,
// reaches one connection to the server. Some drivers parse a statement in one message and run
// it in another, under no name or under one that other clients use too. They may run what
// another client had parsed. So a statement is sent as one text with its arguments written into
// it, unless the driver is known to notice.
type way struct {
	// pgx: there is a connection of pgx inside of a wrapper. pgx names a statement by its
	// text, so a name that got lost, or is there twice, is an error and nothing worse. And it
	// keeps what it has prepared, which texts with arguments in them would waste.
	pgx bool
	// passes: the wrapper has arguments checked by the connection inside, and passes on pgx's
	// own kinds of them.
	passes bool
	// prepares: database/sql must prepare each statement in a message of its own, since the
	// connection offers nothing else.
	prepares bool
}

// wayOf returns how to use a connection of database/sql.
func wayOf(driverConn any) *way {
	_, queries := driverConn.(driver.QueryerContext)

	return &way{
		pgx:      holdsPgx(reflect.ValueOf(driverConn), 4),
		passes:   passesMode(driverConn),
		prepares: !queries,
	}
}

// passesMode reports whether a connection takes pgx's mode for an argument and leaves it as it
// is. Another would make a number of it.
func passesMode(driverConn any) bool {
	checker, ok := driverConn.(driver.NamedValueChecker)
	if !ok {
		return false
	}

	value := driver.NamedValue{Ordinal: 1, Value: pgx.QueryExecModeExec}

	return checker.CheckNamedValue(&value) == nil && value.Value == pgx.QueryExecModeExec
}

var (
	typePgx  = reflect.TypeFor[*stdlib.Conn]()
	typeConn = reflect.TypeFor[driver.Conn]()
)

// holdsPgx looks for a connection of pgx in the fields of a wrapper, and of wrappers in it.
// Reflection may read what it could not use.
func holdsPgx(v reflect.Value, depth int) bool {
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}

	switch {
	case !v.IsValid():
		return false
	case v.Type() == typePgx:
		return true
	case v.Kind() == reflect.Pointer && v.Type().Implements(typeConn):
		v = v.Elem()
	}

	if v.Kind() != reflect.Struct || depth == 0 {
		return false
	}

	for i := range v.NumField() {
		if holdsPgx(v.Field(i), depth-1) {
			return true
		}
	}

	return false
}

// wayOver returns how to use a connection, and remembers it: a handle's connections are all of
// one kind.
func (s *Store) wayOver(conn *sql.Conn) (*way, error) {
	if known := s.way.Load(); known != nil {
		return known, nil
	}

	err := conn.Raw(func(driverConn any) error {
		s.way.Store(wayOf(driverConn))

		return nil
	})

	return s.way.Load(), err
}

// dress returns a statement as it is sent that way. pgx would prepare it under a name. The
// server would then keep a plan made while the table was nearly empty, see sqlByIndex, and a
// pooler might lose the name. So pgx is told to use no name, if the wrapper passes that on.
func (s *Store) dress(w *way, text string, args []any) (string, []any) {
	args = arrayLiterals(args)
	asItIs := s.asItIs.Load()

	if !w.pgx || !asItIs && !isASCII(args) {
		write := inlineASCII
		if s.pq || asItIs { // lib/pq speaks UTF-8 on every connection
			write = inline
		}

		if inlined, ok := write(text, args); ok {
			text, args = inlined, nil
		}
	}

	if w.pgx && w.passes {
		args = append([]any{pgx.QueryExecModeExec}, args...)
	}

	return text, args
}

// plain returns a statement for a handle or a transaction whose connection isn't at hand.
func (s *Store) plain(text string, args []any) (string, []any) {
	if s.native.Load() {
		return text, s.arguments(args)
	}

	w := s.way.Load()
	if w == nil {
		w = new(way)
	}

	return s.dress(w, text, args)
}

// query runs a statement over a connection that isn't pgx's own and drains its rows. Where it
// has to be prepared first, a transaction keeps a pooler from changing the connection.
func query[T any](ctx context.Context, s *Store, w *way, conn *sql.Conn, p prepared, scan scanFunc[T]) (rows []T, err error) {
	text, args := s.dress(w, p.text, p.args)

	if !w.prepares || w.pgx {
		return drain(func() (*sql.Rows, error) { return conn.QueryContext(ctx, text, args...) }, p.rows, scan)
	}

	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}

	rows, err = drain(func() (*sql.Rows, error) { return tx.QueryContext(ctx, text, args...) }, p.rows, scan)
	if err != nil {
		_ = tx.Rollback() // the first error says more

		return nil, err
	}

	return rows, tx.Commit()
}

// discardWithin bounds the farewell to a connection that is discarded.
const discardWithin = time.Second

// discard keeps a connection from being used again. If it is one of a pgxpool.Pool,
// database/sql only gives it back there, and the pool keeps it unless it is closed.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(driverConn any) error { // returns what it is given
		if own, ok := driverConn.(pgxConn); ok {
			ctx, cancel := context.WithTimeout(context.Background(), discardWithin)
			defer cancel()

			_ = own.Conn().Close(ctx) // nobody is to use it any more
		}

		return driver.ErrBadConn
	})
}

// readable reports whether the server reads what pgx sends as UTF-8: unless it is told
// otherwise, it takes it for text in the encoding of the database. lib/pq always tells it.
func readable(conn *pgconn.PgConn, text string, args []any) error {
	client := conn.ParameterStatus("client_encoding")
	if client == "UTF8" || client == "" {
		return nil
	}

	server := conn.ParameterStatus("server_encoding")

	switch {
	case server == "SQL_ASCII", server == "UTF8" && client == "SQL_ASCII": // nothing is converted
		return nil
	case isASCII(args) && isASCII([]any{text}):
		return nil
	}

	return fmt.Errorf("%w: the connection's client_encoding is %s, of a database in %s, and a lock id or a name is not ASCII: "+
		"set client_encoding=UTF8 in the connection string", ErrUnsupportedEncoding, client, server)
}

// isASCII reports whether all text among arguments is.
func isASCII(args []any) bool {
	ascii := func(s string) bool {
		for i := range len(s) {
			if s[i] >= 0x80 {
				return false
			}
		}

		return true
	}

	for _, arg := range args {
		switch v := arg.(type) {
		case string:
			if !ascii(v) {
				return false
			}
		case []string:
			for _, s := range v {
				if !ascii(s) {
					return false
				}
			}
		}
	}

	return true
}

const (
	// sqlAsItIs is what [Store.asItIs] says.
	sqlAsItIs = `SELECT pg_catalog.current_setting('client_encoding') OPERATOR(pg_catalog.=) 'UTF8'
    OR pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) 'SQL_ASCII'`

	// The server refuses the one and answers the other.
	sqlRefused  = `SELECT 'not a number'::pg_catalog.int8`
	sqlAccepted = `SELECT 1::pg_catalog.int8`
)

// acquaint finds out, on the first use of a driver that isn't known, whether it reports the
// SQLSTATE, and what it does with text.
func (s *Store) acquaint(ctx context.Context) error {
	if s.pgx && !s.native.Load() {
		if err := s.meet(ctx); err != nil {
			return err
		}
	}

	if s.native.Load() || s.pq {
		return nil
	}

	asItIs, err := read(ctx, s, sqlAsItIs, nil,
		func(from scanner) (yes bool, err error) {
			err = from.Scan(&yes)

			return yes, err
		})
	if err != nil {
		return err
	}

	s.asItIs.Store(asItIs[0])

	return s.reportsSQLState(ctx)
}

// reportsSQLState checks that a driver reports the SQLSTATE of what the server refuses: else
// every refusal would leave the outcome unknown.
func (s *Store) reportsSQLState(ctx context.Context) error {
	scan := func(from scanner) (n int64, err error) {
		err = from.Scan(&n)

		return n, err
	}

	var refusal error

	// A connection that breaks looks the same, but not time and again between others that work.
	for range 3 {
		refusal = ask(ctx, s, sqlRefused, nil, scan).err
		if refusal == nil || sqlState(refusal) != "" {
			return nil
		}

		if a := ask(ctx, s, sqlAccepted, nil, scan); a.err != nil {
			return a.err
		}
	}

	return fmt.Errorf("%w: %T does not report the SQLSTATE of an error: %w", ErrUnsupportedDriver, s.db.Driver(), refusal)
}
