package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// way is how statements travel over connections that aren't pgx's own.
//
// Behind a pooler in transaction mode one message, or one transaction, reaches one connection to the
// server, and no more. Some drivers parse a statement in one message and run it in another, under no
// name or under one that other clients use too. They may run a statement that another client has
// parsed. So a statement is sent as one text with its arguments written into it, unless the driver
// is known to notice.
type way struct {
	// pgx: there is a connection of pgx inside of a wrapper. pgx names a statement by its text, so a
	// name that got lost, or is there twice, is an error and nothing worse. And it keeps what it has
	// prepared, which texts with arguments in them would waste.
	pgx bool
	// passes: the wrapper has the connection inside check arguments, and passes on pgx's own kinds
	// of them.
	passes bool
	// prepares: database/sql must prepare each statement in a message of its own. The connection
	// offers nothing else.
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

// passesMode reports whether a connection takes pgx's mode for an argument and leaves it as it is.
// Another makes a number of it.
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

// holdsPgx looks for a connection of pgx in the fields of a wrapper, and of wrappers in it. Reflection
// may read what it could not use.
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

// wayOver returns how to use a connection, and remembers it: a handle's connections are all of one
// kind.
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

// dress returns a statement as it is sent that way. pgx would prepare it under a name. The server
// would then keep a plan made while the table was nearly empty, see sqlByIndex, and a pooler might
// lose the name. So pgx is told to use no name, if the wrapper passes that on.
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

// query runs a statement over a connection that isn't pgx's own and reads its rows. Where it has to be
// prepared first, a transaction keeps a pooler from changing the connection.
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

// discard keeps a connection from being used again. database/sql puts one of a pgxpool.Pool back
// there, and the pool keeps it unless it is closed.
func discard(conn *sql.Conn) {
	_ = conn.Raw(func(driverConn any) error { // returns what it is given
		if own, ok := driverConn.(pgxConn); ok {
			ctx, cancel := context.WithTimeout(context.Background(), discardWithin)
			defer cancel()

			_ = own.Conn().Close(ctx)
		}

		return driver.ErrBadConn
	})
}
