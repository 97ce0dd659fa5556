package store

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// pgxConn is a connection of pgx, and no wrapper around it. (A wrapper that embeds pgx's own passes
// for it, and is bypassed.)
type pgxConn interface{ Conn() *pgx.Conn }

// recognize returns a connection as one of pgx, if it is one. All connections of a handle are of
// one kind.
func (s *Store) recognize(driverConn any) (pgxConn, bool) {
	own, native := driverConn.(pgxConn)
	if native != s.native.Load() {
		// In this mode pgx parses in one message and runs in another, under no name. See [way].
		if native && own.Conn().Config().DefaultQueryExecMode == pgx.QueryExecModeDescribeExec {
			s.unnamed.Store(true)
		}

		s.native.Store(native)
	}

	return own, native
}

// pgxRows are those of a statement. batch is what it was sent in, or nil.
type pgxRows struct {
	pgx.Rows
	batch pgx.BatchResults
}

func (r pgxRows) Close() error {
	r.Rows.Close()
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
const sqlByIndex = `SELECT pg_catalog.set_config('enable_seqscan', 'off', true)`

// queryPgx sends a statement. A named one goes behind sqlByIndex, in one round trip and one
// transaction.
func queryPgx(ctx context.Context, conn *pgx.Conn, text string, args []any, named bool) (pgxRows, error) {
	if !named {
		rows, err := conn.Query(ctx, text, args...)

		return pgxRows{Rows: rows}, err
	}

	batch := new(pgx.Batch)
	batch.Queue(sqlByIndex)
	batch.Queue(text, args...)

	results := conn.SendBatch(ctx, batch)

	_, err := results.Exec()
	if err == nil {
		var rows pgx.Rows

		if rows, err = results.Query(); err == nil {
			return pgxRows{rows, results}, nil
		}
	}

	_ = results.Close() // the first error says more

	return pgxRows{}, err
}

// arguments are those for the driver. pgx uses names unless it is told not to.
func (s *Store) arguments(args []any) []any {
	if !s.native.Load() {
		return arrayLiterals(args)
	}

	if !s.unnamed.Load() {
		return args
	}

	return append([]any{pgx.QueryExecModeExec}, args...)
}

// lostStatement reports whether a statement failed only because a pooler lost its name. From then
// on no names are used.
func (s *Store) lostStatement(err error, named bool) bool {
	lost := lostName(err)
	if lost {
		s.unnamed.Store(true)
	}

	return lost && named
}
