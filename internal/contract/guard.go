package contract

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// begin begins a transaction that is rolled back unless the test commits it.
func begin(t *testing.T, db *sql.DB, level sql.IsolationLevel) *sql.Tx {
	t.Helper()

	tx, err := db.BeginTx(withinContext(t), &sql.TxOptions{Isolation: level})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = tx.Rollback() })

	return tx
}

// guardedBy runs both forms of the guard in transactions of their own, and returns the
// error of the first. It fails the test unless they agree.
func guardedBy(t *testing.T, e *env, lock *pglocker.Lock, level sql.IsolationLevel) error {
	t.Helper()

	tx := begin(t, e.db, level)
	err := lock.Guard(t.Context(), tx)
	_ = tx.Rollback()

	query, args := lock.GuardSQL()

	tx = begin(t, e.direct, level)
	defer func() { _ = tx.Rollback() }()

	rows, queryErr := tx.QueryContext(t.Context(), query, args...)
	if queryErr != nil {
		t.Errorf("GuardSQL: %v", queryErr)

		return err
	}

	found := 0
	for rows.Next() {
		found++
	}

	if closeErr := errors.Join(rows.Err(), rows.Close()); closeErr != nil {
		t.Error(closeErr)
	}

	want := 0
	if err == nil {
		want = 1
	}

	if found != want {
		t.Errorf("Guard returned %v, GuardSQL %d rows", err, found)
	}

	return err
}

// testGuard: the guard returns nil while the lock is held, and ErrLockLost after every kind
// of loss.
func testGuard(t *testing.T, e *env) {
	never := pglocker.WithRelockInterval(minute - time.Second)

	for _, level := range []sql.IsolationLevel{
		sql.LevelDefault, sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable,
	} {
		lock := tryLock(t, e.locker, newID(), never)

		if err := guardedBy(t, e, lock, level); err != nil {
			t.Errorf("%s: the guard of a lock that is held: %v", level, err)
		}

		e.take(t, lock.Status().LockID)

		if err := guardedBy(t, e, lock, level); !errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("%s: the guard of a lock that another took: %v, want ErrLockLost", level, err)
		}

		unlockLost(t, lock)

		lock = tryLock(t, e.locker, newID(), never)
		Exec(t, e.direct, "UPDATE "+e.table()+" SET expires_at = statement_timestamp() WHERE lock_id = $1", lock.Status().LockID)

		if err := guardedBy(t, e, lock, level); !errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("%s: the guard of a lock whose lease is over: %v, want ErrLockLost", level, err)
		}

		unlock(t, lock)

		if err := guardedBy(t, e, lock, level); !errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("%s: the guard of a lock that was unlocked: %v, want ErrLockLost", level, err)
		}
	}

	// Most users need it inside of Do.
	err := e.locker.Do(withinContext(t), newID(), minute, time.Second, func(ctx context.Context) error {
		lock, ok := pglocker.FromContext(ctx)
		if !ok {
			t.Fatal("FromContext has no lock inside of Do")
		}

		return guardedBy(t, e, lock, sql.LevelDefault)
	})
	if err != nil {
		t.Error(err)
	}
}

// testGuardHolds: from the guard to the end of its transaction no other client is granted
// the lock, even if the lease ends.
func testGuardHolds(t *testing.T, e *env) {
	const ttl = time.Second

	ctx := withinContext(t)
	id := newID()

	lock, err := e.locker.TryLock(ctx, id, ttl)
	if err != nil {
		t.Fatal(err)
	}

	// Not through the pooler or the locker's pool, which may be of one connection: the next
	// holder needs one too.
	tx := begin(t, e.direct, sql.LevelReadCommitted)
	if err := lock.Guard(ctx, tx); err != nil {
		t.Fatal(err)
	}

	takeover := make(chan *pglocker.LockStatus, 1)

	Await(t, "the lease ends, since the guard keeps it from being renewed", func() bool {
		return !e.get(t, id).ExpiresAt.After(Now(t, e.direct))
	})

	go func() {
		status, err := e.newLocker(t).AcquireLock(ctx, id, minute)
		if err != nil {
			t.Errorf("AcquireLock beside a guard: %v", err)
		}

		takeover <- status
	}()

	Await(t, "the takeover waits for the guard", func() bool {
		if len(takeover) > 0 {
			t.Fatal("the lock was taken over while the guard's transaction ran")
		}

		return e.rowWaits(t) > 0
	})

	// The holder knows it by itself, without the database.
	Receive(t, "the holder stops", lock.Context().Done())

	if err := tx.Commit(); err != nil {
		t.Errorf("a transaction that the guard let pass: %v", err)
	}

	if status := Receive(t, "the takeover", takeover); status.Generation <= lock.Token() {
		t.Errorf("token %d after %d", status.Generation, lock.Token())
	}

	unlockLost(t, lock)
}

// testGuardSerialization: in the stricter levels a guard fails if the lock was renewed
// after the transaction's snapshot. That is no loss.
func testGuardSerialization(t *testing.T, e *env) {
	for _, level := range []sql.IsolationLevel{sql.LevelRepeatableRead, sql.LevelSerializable} {
		lock := tryLock(t, e.locker, newID(), pglocker.WithRelockInterval(10*time.Millisecond))
		tx := begin(t, e.direct, level)

		var one int
		if err := tx.QueryRowContext(t.Context(), "SELECT 1").Scan(&one); err != nil {
			t.Fatal(err)
		}

		// The first renewal that is acknowledged may have been committed before the
		// snapshot. The second was sent after it.
		for range 2 {
			before := lock.Status().ExpiresAt

			Await(t, "the lease is renewed", func() bool { return lock.Status().ExpiresAt.After(before) })
		}

		err := lock.Guard(t.Context(), tx)

		if SQLState(err) != "40001" || errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("%s: a guard after a renewal: %v, want SQLSTATE 40001 and no loss", level, err)
		}

		_ = tx.Rollback()

		unlock(t, lock)
	}
}
