package store

import (
	"context"
	"fmt"
)

const (
	// sqlAsItIs is what [Store.asItIs] says.
	sqlAsItIs = `SELECT pg_catalog.current_setting('client_encoding') OPERATOR(pg_catalog.=) 'UTF8'
    OR pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) 'SQL_ASCII'`

	// The server refuses the one and answers the other.
	sqlRefused  = `SELECT 'not a number'::pg_catalog.int8`
	sqlAccepted = `SELECT 1::pg_catalog.int8`
)

// acquaint finds out what a driver that isn't known does with SQLSTATEs and with text.
func (s *Store) acquaint(ctx context.Context) error {
	if s.pgx && !s.native.Load() {
		if err := s.meet(ctx); err != nil {
			return err
		}
	}

	if s.native.Load() || s.pq {
		return nil
	}

	asItIs, err := read(ctx, s, sqlAsItIs, nil, scanOne[bool])
	if err != nil {
		return err
	}

	s.asItIs.Store(asItIs[0])

	return s.reportsSQLState(ctx)
}

// reportsSQLState returns an error if the driver doesn't report the SQLSTATE of a refusal: every
// refusal would leave the outcome unknown.
func (s *Store) reportsSQLState(ctx context.Context) error {
	var refusal error

	// A connection that breaks looks the same, but not time and again between others that work.
	for range 3 {
		refusal = ask(ctx, s, sqlRefused, nil, scanOne[int64]).err
		if refusal == nil || sqlState(refusal) != "" {
			return nil
		}

		if a := ask(ctx, s, sqlAccepted, nil, scanOne[int64]); a.err != nil {
			return a.err
		}
	}

	return fmt.Errorf("%w: %T does not report the SQLSTATE of an error: %w", ErrUnsupportedDriver, s.handle.db.Driver(), refusal)
}

// meet finds out whose connections the handle has, see [Store.native]. It sends nothing.
func (s *Store) meet(ctx context.Context) error {
	conn, done, err := s.connect(ctx)
	if err != nil {
		return err
	}

	defer done()

	return conn.Raw(func(driverConn any) error {
		if own, native := s.recognize(driverConn); native {
			return readable(own.PgConn(), s.table.String(), nil)
		}

		s.way.Store(wayOf(driverConn))

		return nil
	})
}
