package pglocker

import (
	"context"
	"database/sql"
	"fmt"
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
// Errors: [ErrLockLost] if the token is no longer the current one, or its lease has ended, or the lock was
// unlocked: roll back. Other errors are the driver's, and prove nothing; the transaction can't commit after
// them. If ctx ends, database/sql rolls the transaction back.
func (lk *Lock) Guard(ctx context.Context, tx *sql.Tx) error {
	if err := lk.group.over(); err != nil {
		return err
	}

	held, err := lk.group.locker.store.Guard(ctx, tx, lk.lease.LockID, lk.lease.Generation)

	switch {
	case err != nil:
		return tidy(fmt.Errorf("pglocker: guard of %q: %w", lk.lease.LockID, err))
	case !held:
		return fmt.Errorf("%w: found by the guard of %q", ErrLockLost, lk.lease.LockID)
	}

	return nil
}

// Guard is [Lock.Guard] of what is held under ctx, with its errors: a lock, or all locks that are held as one.
// It returns [ErrNoLock] if nothing is.
func Guard(ctx context.Context, tx *sql.Tx) error {
	g := groupOf(ctx)
	if g == nil {
		return ErrNoLock
	}

	return g.guard(ctx, tx)
}

// guard is [Lock.Guard] of all locks of the group, in one statement.
func (g *group) guard(ctx context.Context, tx *sql.Tx) error {
	if len(g.locks) == 1 {
		return g.locks[0].Guard(ctx, tx)
	}

	if err := g.over(); err != nil {
		return err
	}

	ids, generations := make([]string, len(g.locks)), make([]int64, len(g.locks))
	for i, lk := range g.locks {
		ids[i], generations[i] = lk.lease.LockID, lk.lease.Generation
	}

	lost, err := g.locker.store.GuardAll(ctx, tx, ids, generations)

	switch {
	case err != nil:
		return tidy(fmt.Errorf("pglocker: guard of %s: %w", g.name(), err))
	case len(lost) > 0:
		return fmt.Errorf("%w: found by the guard of %q", ErrLockLost, lost[0])
	}

	return nil
}

// GuardSQL is [Lock.Guard] for drivers other than database/sql: a query, with PostgreSQL's numbered
// parameters, and its arguments. Run it in a transaction. The rules of Guard for isolation levels hold for it
// too. It returns one row if the lock is held. If it returns none, the lock is lost: roll back.
func (lk *Lock) GuardSQL() (query string, args []any) {
	return lk.group.locker.store.GuardSQL(), []any{lk.lease.LockID, lk.lease.Generation}
}
