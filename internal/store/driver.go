package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"reflect"
	"time"

	"github.com/jackc/pgx/v5"
)

// way is how statements travel over connections that aren't pgx's own.
//
// Behind a pooler in transaction mode one message, or one transaction, reaches one connection to
// the server. A driver that parses a statement in one message and runs it in another may run what
// another client has parsed. So a statement is sent as one text with its arguments in it, unless
// the driver is known to notice.
type way struct {
	// pgx: a wrapper has a connection of pgx inside. pgx names a statement by its text: a lost name
	// is an error and nothing worse. It keeps what it has prepared, which texts with arguments in
	// them would waste.
	pgx bool
	// passes: the wrapper passes pgx's own kinds of arguments on.
	passes bool
	// prepares: the connection offers nothing but to prepare each statement in a message of its
	// own.
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

// passesMode reports whether a connection takes pgx's mode for an argument as it is.
func passesMode(driverConn any) bool {
	checker, ok := driverConn.(driver.NamedValueChecker)
	if !ok {
		return false
	}

	value := driver.NamedValue{Ordinal: 1, Value: pgx.QueryExecModeExec}

	return checker.CheckNamedValue(&value) == nil && value.Value == pgx.QueryExecModeExec
}

// holdsPgx looks for a connection of pgx in the fields of a wrapper, and of wrappers in it.
func holdsPgx(v reflect.Value, depth int) bool {
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}

	switch {
	case !v.IsValid():
		return false
	case isType(v.Type(), stdlibPath, "Conn"):
		return true
	case v.Kind() == reflect.Pointer && v.Type().Implements(reflect.TypeFor[driver.Conn]()):
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

// wayOver returns how to use a connection. All connections of a handle are of one kind.
func (s *Store) wayOver(c conn) (*way, error) {
	if known := s.way.Load(); known != nil {
		return known, nil
	}

	err := c.Raw(func(driverConn any) error {
		s.way.Store(wayOf(driverConn))

		return nil
	})

	return s.way.Load(), err
}

// dress returns a statement as it is sent that way. pgx is told to use no name, if the wrapper
// passes that on: a plan made for a nearly empty table would be kept, see sqlByIndex, and a pooler
// might lose the name.
func (s *Store) dress(w *way, text string, args []any) (string, []any) {
	args = arrayLiterals(args)
	asItIs := s.asItIs.Load()

	if !w.pgx || !asItIs && !isASCII(args) {
		quote := asciiLiteral
		if s.pq || asItIs { // lib/pq speaks UTF-8 on every connection
			quote = quoteLiteral
		}

		if inlined, ok := inline(quote, text, args); ok {
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

// query runs a statement over a connection that isn't pgx's own. Where it has to be prepared first,
// a transaction keeps a pooler from changing the connection.
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

// discard keeps a connection from being used again. A pgxpool.Pool keeps one until it is closed.
func discard(c conn) {
	_ = c.Raw(func(driverConn any) error { // returns what it is given
		if own, ok := pgxConnOf(driverConn); ok {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()

			_ = own.Close(ctx)
		}

		return driver.ErrBadConn
	})
}

// recognize returns a connection as one of pgx, if it is one.
func (s *Store) recognize(driverConn any) (pgxConn, bool) {
	own, native := s.pgxConnOf(driverConn)
	if native != s.native.Load() {
		if native {
			s.heed(own.Config())
		}

		s.native.Store(native)
	}

	return own, native
}

// pgxRows are those of a statement. batch is what it was sent in, or nil.
type pgxRows struct {
	rowsOfPgx
	batch io.Closer
}

// rowsOfPgx is the part of pgx.Rows that says nothing of connections, see [pgxConn].
type rowsOfPgx interface {
	scanner
	Next() bool
	Err() error
	Close()
}

func (r pgxRows) Close() error {
	r.rowsOfPgx.Close()
	err := r.Err()

	if r.batch != nil {
		// The transaction of both statements ends here.
		if batchErr := r.batch.Close(); err == nil {
			err = batchErr
		}
	}

	return err
}

// sqlByIndex has the statement behind it planned without a scan of the whole table. A named
// statement is planned a few times, and then never again. A scan looks cheap if the table is nearly
// empty by then, and would later be made for each lock of thousands.
//
// The statements of the table's triggers are planned so, too. Where one has no index to use, its scan looks as
// dear as can be, and the server would compile the plan, which takes it 0.1 s: jit is off.
const sqlByIndex = `SELECT pg_catalog.set_config('enable_seqscan', 'off', true), pg_catalog.set_config('jit', 'off', true)`

// byIndexError is the error of sqlByIndex. The statement behind it was not run.
type byIndexError struct{ error }

func (e byIndexError) Unwrap() error { return e.error }

// withoutSettings reports whether the server has refused sqlByIndex, and has no settings.
func withoutSettings(err error) bool { return errors.As(err, new(byIndexError)) && lacksFeature(err) }

// queryPgx sends a statement. A named one goes behind sqlByIndex, in one round trip and one
// transaction.
func queryPgx(ctx context.Context, conn pgxConn, text string, args []any, named bool) (pgxRows, error) {
	if !named {
		rows, err := conn.Query(ctx, text, args...)

		return pgxRows{rowsOfPgx: rows}, err
	}

	batch := new(pgx.Batch)
	batch.Queue(sqlByIndex)
	batch.Queue(text, pgxArrays(args)...)

	results := conn.SendBatch(ctx, batch)

	_, err := results.Exec()
	if err != nil {
		err = byIndexError{err}
	} else {
		var rows pgx.Rows

		if rows, err = results.Query(); err == nil {
			return pgxRows{rows, results}, nil
		}
	}

	_ = results.Close() // the first error says more

	return pgxRows{}, err
}
