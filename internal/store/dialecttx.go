package store

import (
	"context"
	"database/sql"
	"errors"
)

// transaction is one of a connection.
type transaction struct {
	ask func(text string, args []any) (result, error)
	end func(commit bool) error
}

// beginOn begins a transaction.
func (s *Store) beginOn(ctx context.Context, c conn) (t transaction, err error) {
	if c, ok := c.(*sql.Conn); ok {
		return s.beginInSQL(ctx, c)
	}

	err = c.Raw(func(driverConn any) error {
		own, _ := s.recognize(driverConn) // a pgxpool.Pool has no others
		t = transactionOf(ctx, s, own)
		_, err := own.Exec(ctx, "BEGIN")

		return err
	})

	return t, err
}

func (s *Store) beginInSQL(ctx context.Context, c *sql.Conn) (transaction, error) {
	tx, err := c.BeginTx(ctx, nil)
	if err != nil {
		return transaction{}, err
	}

	return transaction{
		ask: func(text string, args []any) (result, error) {
			text, args = s.plain(text, args)

			return tx.QueryContext(ctx, text, args...)
		},
		end: func(commit bool) error {
			if commit {
				return tx.Commit()
			}

			return tx.Rollback()
		},
	}, nil
}

// transactionOf is one that has begun on a connection of a pgxpool.Pool. The pool closes a connection that comes back
// within a transaction.
func transactionOf(ctx context.Context, s *Store, own pgxConn) transaction {
	return transaction{
		ask: func(text string, args []any) (result, error) {
			return queryPgx(ctx, own, text, s.arguments(args), false)
		},
		end: func(commit bool) error {
			if !commit {
				_, err := own.Exec(ctx, "ROLLBACK")

				return err
			}

			tag, err := own.Exec(ctx, "COMMIT")
			if err == nil && tag.String() != "COMMIT" {
				err = errors.New("pglocker: the server rolled a transaction back instead of committing it")
			}

			return err
		},
	}
}

// inTx runs a statement in a transaction.
func inTx[T any](t transaction, text string, args []any, scan scanFunc[T]) ([]T, error) {
	return drain(func() (result, error) { return t.ask(text, args) }, 1, scan)
}
