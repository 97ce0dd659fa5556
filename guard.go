package pglocker

import (
	"context"
	"database/sql"
	"fmt"
	"reflect"

	"github.com/jackc/pgx/v5"

	"github.com/ismurov/pglocker/internal/store"
)

// Guard proves, inside the caller's transaction, that this lock is still held under this token. It keeps the
// lock's row locked until the transaction ends, so no other can be granted the lock before. If the transaction
// commits, its writes were made under the lock, whatever pauses, crashes or clock jumps there were. The lock's
// table must be in the database of the transaction.
//
// A guarded transaction should end well within the TTL: while it is open, the lock can't be renewed or
// released.
//
// In READ COMMITTED the guard can stand anywhere in the transaction. In REPEATABLE READ and SERIALIZABLE it
// goes first: after the transaction's first statement, any renewal and any new waiter makes it fail with
// SQLSTATE 40001. Retry the transaction then. Guard again after a rollback to a savepoint.
//
// Errors:
//
//   - [ErrLockLost] if the token is no longer the current one, or its lease has ended, or the lock was
//     unlocked: roll back.
//   - [ErrNoTransaction] if tx is nil.
//   - Others are the driver's, and prove nothing. The transaction can't commit after them. If ctx ends,
//     database/sql rolls the transaction back.
//
// Where pgx is known to be behind tx, the guard is sent by the extended protocol under no name, whatever mode the
// connection has by default.
func (lk *Lock) Guard(ctx context.Context, tx *sql.Tx) error { return lk.group.guard(ctx, inSQL(tx)) }

// GuardPgx is [Lock.Guard] for a pgx.Tx, begun by a pool or by a connection. If ctx ends, pgx closes the
// connection, which rolls the transaction back. It returns [ErrNoTransaction] also if no transaction is open: one
// that a statement has ended, or a pool that has the methods of a transaction.
func (lk *Lock) GuardPgx(ctx context.Context, tx PgxTx) error { return lk.group.guard(ctx, inPgx(tx)) }

// GuardTx is [Lock.Guard] for a transaction of a library on database/sql. If a *sql.Tx is embedded in tx, the
// guard is a statement of that, which the library's hooks don't see. Otherwise it is one of tx, and a second
// one makes sure that both were in one transaction.
//
// What is no transaction gets [ErrNoTransaction]: *sql.DB, *sql.Conn, a type that embeds nil, and any other whose
// statements have a transaction each.
func (lk *Lock) GuardTx(ctx context.Context, tx Tx) error { return lk.group.guard(ctx, inTx(tx)) }

// GuardSQL is the statement of [Lock.Guard], where a library has neither a *sql.Tx nor a pgx.Tx to give: a query,
// with PostgreSQL's numbered parameters, and its arguments. Run it in a transaction. The rules of Guard for
// isolation levels hold for it too. It returns one row if the lock is held. If it returns none, the lock is
// lost: roll back.
func (lk *Lock) GuardSQL() (query string, args []any) {
	return lk.group.locker.store.GuardSQL(), []any{lk.lease.LockID, lk.lease.Generation}
}

// Guard is [Lock.Guard] of what is held under ctx, with its errors: a lock, or all locks that are held as one.
// It returns [ErrNoLock] if nothing is.
func Guard(ctx context.Context, tx *sql.Tx) error { return guardHeld(ctx, inSQL(tx)) }

// GuardPgx is [Guard] for a pgx.Tx: see [Lock.GuardPgx].
func GuardPgx(ctx context.Context, tx PgxTx) error { return guardHeld(ctx, inPgx(tx)) }

// GuardTx is [Guard] for a transaction of a library on database/sql: see [Lock.GuardTx].
func GuardTx(ctx context.Context, tx Tx) error { return guardHeld(ctx, inTx(tx)) }

// Tx is a transaction of a library on database/sql, such as gorm, sqlx or bun, for [GuardTx]. *sql.DB and *sql.Conn have
// the method too, and are refused.
type Tx interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// PgxTx is a pgx.Tx, for [GuardPgx]. Pools and connections of pgx lack Commit and Rollback. It names the methods, and
// not the type, because programs that don't use pgx would otherwise link it.
type PgxTx interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	Commit(ctx context.Context) error
	Rollback(ctx context.Context) error
}

func guardHeld(ctx context.Context, in store.Transaction) error {
	g := groupOf(ctx)
	if g == nil {
		return ErrNoLock
	}

	return g.guard(ctx, in)
}

// guard proves in one statement that all locks of the group are held.
func (g *group) guard(ctx context.Context, in store.Transaction) error {
	if err := g.over(); err != nil {
		return err
	}

	ids, generations := make([]string, len(g.locks)), make([]int64, len(g.locks))
	for i, lk := range g.locks {
		ids[i], generations[i] = lk.lease.LockID, lk.lease.Generation
	}

	lost, err := g.locker.store.Guard(ctx, in, ids, generations)

	switch {
	case err != nil:
		return tidy(fmt.Errorf("pglocker: guard of %s: %w", g.name(), err))
	case len(lost) > 0:
		return fmt.Errorf("%w: found by the guard of %q", ErrLockLost, lost[0])
	}

	return nil
}

func inSQL(tx *sql.Tx) store.Transaction {
	if tx == nil {
		return inNone(tx)
	}

	return store.InSQL(tx)
}

func inPgx(tx PgxTx) store.Transaction {
	if isNil(tx) {
		return inNone(tx)
	}

	return store.InPgx(tx)
}

func inTx(tx Tx) store.Transaction {
	if isNil(tx) {
		return inNone(tx)
	}

	switch tx.(type) {
	case *sql.DB, *sql.Conn:
		return inNone(tx)
	}

	found, empty := embedded(reflect.ValueOf(tx), 4)

	switch {
	case found != nil:
		return store.InSQL(found)
	case empty: // its method would panic
		return inNone(tx)
	}

	return store.InAny(tx)
}

// inNone refuses what isn't a transaction.
func inNone(given any) store.Transaction {
	return func(context.Context, *store.Store, string, []any, any) error {
		if isNil(given) {
			return fmt.Errorf("%w: nil", ErrNoTransaction)
		}

		return fmt.Errorf("%w: %T", ErrNoTransaction, given)
	}
}

func isNil(tx any) bool {
	v := reflect.ValueOf(tx)

	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
}

// embedded returns the *sql.Tx that v is or embeds, nil if there is none. Types of libraries embed one several levels
// deep, behind interfaces too. empty: what v embeds in its place is nil.
func embedded(v reflect.Value, depth int) (tx *sql.Tx, empty bool) {
	if v.Kind() == reflect.Interface {
		v = v.Elem()
	}

	if isEmpty := !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil(); isEmpty {
		return nil, true
	}

	if v.Type() == reflect.TypeFor[*sql.Tx]() {
		return (*sql.Tx)(v.UnsafePointer()), false
	}

	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}

	if v.Kind() != reflect.Struct || depth == 0 {
		return nil, false
	}

	for i := range v.NumField() {
		field := v.Type().Field(i)
		if !field.Anonymous {
			continue
		}

		found, isEmpty := embedded(v.Field(i), depth-1)
		if found != nil {
			return found, false
		}

		empty = empty || isEmpty && field.Type.Implements(reflect.TypeFor[Tx]())
	}

	return nil, empty
}
