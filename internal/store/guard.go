package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"
)

// sqlGuard proves, inside its caller's transaction, that generation $2 holds the lock $1, and keeps
// it so until that ends: the share lock conflicts with every transition. (FOR KEY SHARE doesn't,
// since transitions leave the key alone.)
const sqlGuard = `
SELECT l.generation
  FROM {table} AS l
 WHERE l.lock_id {=} $1
   AND l.generation {=} $2
   AND l.expires_at {>} {now}
   FOR SHARE`

// GuardSQL is sqlGuard for the Store's table. It sends nothing.
func (s *Store) GuardSQL() string {
	if last := s.shape.last.Load(); last != nil {
		return last.statements.guard()
	}

	return render(s.table, form{}).guard()
}

// What guards need of transactions.
type (
	sqlTx interface {
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	}
	// pgxTx shows no *pgx.Conn, see [pgxConn].
	pgxTx interface {
		QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	}
)

// Transaction is one of the caller's. It runs a statement of one row, and scans its one column.
type Transaction func(ctx context.Context, s *Store, text string, args []any, dest any) error

// InSQL runs guards in a transaction of database/sql.
func InSQL(tx *sql.Tx) Transaction {
	return func(ctx context.Context, s *Store, text string, args []any, dest any) error {
		text, args = s.inTransactionOf(handleOf(tx), text, args)

		return tx.QueryRowContext(ctx, text, args...).Scan(dest)
	}
}

// handleOf reads the handle that a transaction was begun on. The field is written once, before the transaction is
// handed out, so reading it is no race. It returns nil if a Go release changes name or type.
func handleOf(tx *sql.Tx) *sql.DB {
	field := reflect.ValueOf(tx).Elem().FieldByName("db")
	if !field.IsValid() || field.Type() != reflect.TypeFor[*sql.DB]() {
		return nil
	}

	return (*sql.DB)(field.UnsafePointer())
}

// inTransactionOf returns a guard as it is sent in a transaction of db, which may be of another driver than the lock's,
// and is nil if nobody knows. Within a transaction a pooler keeps the connection, so every driver may be given
// arguments. But not every one tells the server that they are UTF-8. pgx is told to use no name, where that is known to
// reach it: a pooler might have lost the name, and the caller's transaction would fail with it.
func (s *Store) inTransactionOf(db *sql.DB, text string, args []any) (string, []any) {
	args = arrayLiterals(args)
	own := db != nil && db == s.handle.db
	ascii := isASCII(args) || db != nil && isPq(db.Driver()) // which speaks UTF-8

	// A handle that isn't the lock's own may have connections that pass no mode on, unless pgx makes them.
	ofPgx, unnamed := !own && db != nil && isPgx(db.Driver()), s.unnamed.Load()
	toPgx := ofPgx && (unnamed || opensPgx(db))

	switch {
	case own && s.native.Load():
		return text, append([]any{pgx.QueryExecModeExec}, args...)
	case own && !ascii:
		return s.plain(text, args)
	case !ascii || unnamed && !toPgx:
		if inlined, ok := inline(bytesLiteral, text, args); ok {
			text, args = inlined, nil
		}
	}

	if toPgx {
		args = append([]any{pgx.QueryExecModeExec}, args...)
	}

	return text, args
}

// InPgx runs guards in what is said to be a transaction of pgx, and then makes sure that it is one.
func InPgx(tx pgxTx) Transaction {
	return func(ctx context.Context, s *Store, text string, args []any, dest any) error {
		conn, known := pgxConnOf(tx)

		if known && !isASCII(append(args, text)) {
			if err := readable(conn.PgConn(), text, args); err != nil {
				return err
			}
		}

		args = arrayLiterals(args) // which every mode of pgx can send

		var mode []any
		if known || s.unnamed.Load() { // no name, see inTransactionOf
			mode = []any{pgx.QueryExecModeExec}
		}

		if err := tx.QueryRow(ctx, text, append(mode, args...)...).Scan(dest); err != nil {
			return err
		}

		if known {
			return noneUnless(conn.PgConn().TxStatus() == 'T', tx) // as of the answer
		}

		inTransaction, err := s.inTransaction(func(text string, dest any) error { return tx.QueryRow(ctx, text, mode...).Scan(dest) })
		if err != nil {
			return err
		}

		return noneUnless(inTransaction, tx)
	}
}

const (
	// sqlInTransaction reports whether a statement is in a transaction that has locked a row before.
	sqlInTransaction = `SELECT pg_catalog.txid_current_if_assigned() IS NOT NULL`

	sqlTransaction = `SELECT pg_catalog.txid_current()`
)

// inTransaction reports whether ask runs statements in a transaction that has locked a row before. If the row is on
// another server, the one that is asked may have no number for the transaction, so it is asked for that twice.
func (s *Store) inTransaction(ask func(text string, dest any) error) (is bool, err error) {
	if !s.isPlain() {
		err = ask(sqlInTransaction, &is)

		return is, err
	}

	var first, second int64
	if err = ask(sqlTransaction, &first); err == nil {
		err = ask(sqlTransaction, &second)
	}

	return first == second, err
}

// InAny runs guards in what is said to be a transaction, and then makes sure that it is one.
func InAny(tx sqlTx) Transaction {
	return func(ctx context.Context, s *Store, text string, args []any, dest any) error {
		text, args = s.inTransactionOf(nil, text, args)

		// A library may write the arguments into the statement itself, and find no place for them, as bun does.
		if inlined, ok := inline(bytesLiteral, text, args); ok {
			text, args = inlined, nil
		}

		if err := tx.QueryRowContext(ctx, text, args...).Scan(dest); err != nil {
			return err
		}

		inTransaction, err := s.inTransaction(func(text string, dest any) error { return tx.QueryRowContext(ctx, text).Scan(dest) })
		if err != nil {
			return err
		}

		return noneUnless(inTransaction, tx)
	}
}

// noneUnless returns an error that says that tx is no transaction, unless it is.
func noneUnless(inTransaction bool, tx any) error {
	if inTransaction {
		return nil
	}

	return fmt.Errorf("%w: %T", ErrNoTransaction, tx)
}

// Guard runs sqlGuard in a transaction, or sqlGuardAll for several ids, and returns which of them the
// generations don't hold. After an error the transaction can't go on.
func (s *Store) Guard(ctx context.Context, in Transaction, ids []string, generations []int64) (lost []string, err error) {
	if len(ids) == 1 {
		err = in(ctx, s, s.GuardSQL(), []any{ids[0], generations[0]}, new(int64))
	} else {
		lost, err = s.guardAll(ctx, in, ids, generations)
	}

	switch {
	case errors.Is(err, sql.ErrNoRows): // so does pgx's
		return ids, nil
	case err != nil:
		return nil, s.guardFailed(err)
	}

	return lost, nil
}

// guardFailed takes the error of a guard. It notes whether a pooler lost a prepared statement, and adds
// to the error what the caller can do.
func (s *Store) guardFailed(err error) error {
	s.lostStatement(err, true)

	if stalePlan(err) {
		return fmt.Errorf("%w (the table was altered: repeat the transaction)", err)
	}

	return err
}
