package contract

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// lostState is the SQLSTATE of assert_held.
const lostState = "PL001"

// sqlClient returns a client of the functions, on a table that MigrateDB made.
func (e *env) sqlClient(t *testing.T) *SQLClient {
	t.Helper()

	if !e.hasOwners() {
		t.Skip("a table of the user's own has no functions")
	}

	return NewSQLClient(e.direct, e.config())
}

// sqlAcquire takes a free lock for a minute.
func sqlAcquire(t *testing.T, c *SQLClient, id string) SQLGrant {
	t.Helper()

	g, err := c.Acquire(t.Context(), id, minute, "sql.client")
	if err != nil || !g.Acquired {
		t.Fatalf("acquire_lock: %+v, %v", g, err)
	}

	return g
}

func sqlRelease(t *testing.T, c *SQLClient, id string, token int64) {
	t.Helper()

	if held, err := c.Release(t.Context(), id, token); err != nil || !held {
		t.Errorf("release_lock: %t, %v", held, err)
	}
}

// sqlLost fails the test unless the functions say that the token is not the lock's any more.
func sqlLost(t *testing.T, c *SQLClient, id string, token int64) {
	t.Helper()

	if until, held, err := c.Renew(t.Context(), id, token, minute); err != nil || held {
		t.Errorf("renew_lock of a lost lock: %s, %t, %v", until, held, err)
	}

	if err := assertedBy(t, c, id, token, sql.LevelDefault); SQLState(err) != lostState {
		t.Errorf("assert_held of a lost lock: %v, want SQLSTATE %s", err, lostState)
	}
}

// assertedBy calls assert_held in a transaction of its own.
func assertedBy(t *testing.T, c *SQLClient, id string, token int64, level sql.IsolationLevel) error {
	t.Helper()

	tx := begin(t, c.db, level)
	defer func() { _ = tx.Rollback() }()

	return c.AssertHeld(t.Context(), tx, id, token)
}

// testSQLFunctions: a client that has only the functions and one of this package exclude each other, and
// their tokens are of one series. Each is told who holds the lock.
func testSQLFunctions(t *testing.T, e *env) {
	c := e.sqlClient(t)
	ctx := withinContext(t)
	id := newID()

	// No row -> held.
	want := e.next(1)

	g := sqlAcquire(t, c, id)
	if name := fmt.Sprintf("sql.client#sql.%d", want); g.Token != want || g.Holder != name || g.Remaining <= 0 || g.Remaining > minute {
		t.Errorf("acquire_lock: %+v, want token %d, holder %s, and a minute", g, want, name)
	}

	status := e.get(t, id)
	if status.Generation != g.Token || !status.ExpiresAt.Equal(g.ExpiresAt) || status.Owner != g.Holder || !status.AcquiredAt.Add(minute).Equal(g.ExpiresAt) {
		t.Errorf("acquire_lock: %+v, the database shows %+v", g, status)
	}

	_, err := e.locker.TryLock(ctx, id, minute)

	var held *pglocker.HeldError
	if !errors.As(err, &held) || held.Owner != g.Holder || held.Generation != g.Token || held.Remaining <= 0 || held.Remaining > minute {
		t.Errorf("TryLock of a lock that SQL holds: %v, %+v", err, held)
	}

	// Refused, by SQL too.
	if other, err := c.Acquire(ctx, id, minute, "other"); err != nil || other.Acquired || other.Token != 0 ||
		other.Holder != g.Holder || !other.ExpiresAt.Equal(g.ExpiresAt) || other.Remaining <= 0 {
		t.Errorf("acquire_lock of a held lock: %+v, %v", other, err)
	}

	// Held -> held for longer, with the same token. A shorter lease isn't cut.
	for _, ttl := range []time.Duration{time.Hour, minute} {
		until, held, err := c.Renew(ctx, id, g.Token, ttl)
		if now := e.get(t, id); err != nil || !held || !until.Equal(now.ExpiresAt) || now.Generation != g.Token || until.Sub(g.ExpiresAt) < 50*minute {
			t.Errorf("renew_lock for %s: %s, %t, %v, the database shows %+v", ttl, until, held, err, now)
		}
	}

	if err := assertedBy(t, c, id, g.Token, sql.LevelDefault); err != nil {
		t.Errorf("assert_held: %v", err)
	}

	// Only the present token renews and releases.
	sqlLost(t, c, id, g.Token-1)

	if held, err := c.Release(ctx, id, g.Token-1); err != nil || held {
		t.Errorf("release_lock by an older token: %t, %v", held, err)
	}

	// Held -> free.
	sqlRelease(t, c, id, g.Token)
	e.isFree(t, id)

	if status := e.get(t, id); status.Generation != e.next(g.Token) || status.Owner != "" || !status.AcquiredAt.IsZero() {
		t.Errorf("released: %+v", status)
	}

	sqlLost(t, c, id, g.Token)

	if held, err := c.Release(ctx, id, g.Token); err != nil || held {
		t.Errorf("release_lock of a released lock: %t, %v", held, err)
	}

	// A Locker's turn.
	lock := tryLock(t, e.locker, id)
	if lock.Token() <= g.Token {
		t.Errorf("token %d after %d", lock.Token(), g.Token)
	}

	if refused, err := c.Acquire(ctx, id, minute, "other"); err != nil || refused.Acquired || refused.Token != 0 || refused.Holder != lock.Status().Owner {
		t.Errorf("acquire_lock of a lock that a Locker holds: %+v, %v", refused, err)
	}

	if err := assertedBy(t, c, id, lock.Token(), sql.LevelDefault); err != nil {
		t.Errorf("assert_held under a Locker's lock: %v", err)
	}

	unlock(t, lock)

	// Free -> held.
	again := sqlAcquire(t, c, id)
	if again.Token != e.next(e.next(lock.Token())) {
		t.Errorf("token %d after %d and its release", again.Token, lock.Token())
	}

	sqlRelease(t, c, id, again.Token)
}

// testSQLExpired: a lease that has ended can't be renewed, and is another's to take.
func testSQLExpired(t *testing.T, e *env) {
	c := e.sqlClient(t)
	id := newID()
	g := sqlAcquire(t, c, id)

	Exec(t, e.direct, "UPDATE "+e.table()+" SET expires_at = statement_timestamp() WHERE lock_id = $1", id)
	sqlLost(t, c, id, g.Token)

	lock := tryLock(t, e.locker, id, pglocker.WithRelockInterval(minute-time.Second))
	sqlLost(t, c, id, g.Token)

	if held, err := c.Release(t.Context(), id, g.Token); err != nil || held {
		t.Errorf("release_lock of what another was granted: %t, %v", held, err)
	}

	// And back: what SQL takes over, the Locker has lost.
	Exec(t, e.direct, "UPDATE "+e.table()+" SET expires_at = statement_timestamp() WHERE lock_id = $1", id)

	next := sqlAcquire(t, c, id)
	if next.Token <= lock.Token() {
		t.Errorf("token %d after %d", next.Token, lock.Token())
	}

	unlockLost(t, lock)
	sqlRelease(t, c, id, next.Token)

	// An expired lease that nobody took may be released.
	g = sqlAcquire(t, c, id)
	Exec(t, e.direct, "UPDATE "+e.table()+" SET expires_at = statement_timestamp() WHERE lock_id = $1", id)
	sqlRelease(t, c, id, g.Token)
}

// testSQLContended: of clients of both kinds that want the lock again and again, one has it at a time.
func testSQLContended(t *testing.T, e *env) {
	const rounds = 10

	var (
		c       = e.sqlClient(t)
		ctx     = withinContext(t)
		id      = newID()
		inside  atomic.Int64
		largest atomic.Int64
		clients sync.WaitGroup
	)

	hold := func(token int64) {
		if inside.Add(1) != 1 {
			t.Error("two hold the lock")
		}

		if last := largest.Swap(token); last >= token {
			t.Errorf("token %d after %d", token, last)
		}

		inside.Add(-1)
	}

	for i := range 2 {
		locker := e.newLocker(t)

		clients.Go(func() {
			for range rounds {
				err := locker.Do(ctx, id, minute, time.Second, func(ctx context.Context) error {
					lock, _ := pglocker.FromContext(ctx)
					hold(lock.Token())

					return nil
				}, pglocker.WithWait(within))
				if err != nil {
					t.Error(err)
				}
			}
		})
		clients.Go(func() {
			for held := 0; held < rounds; {
				g, err := c.Acquire(ctx, id, minute, fmt.Sprint("client ", i))
				if err != nil {
					t.Error(err)

					return
				}

				if !g.Acquired {
					continue
				}

				hold(g.Token)
				sqlRelease(t, c, id, g.Token)

				held++
			}
		})
	}

	clients.Wait()
}

// testSQLReleaseWakes: a waiter of a Locker is granted the lock when SQL releases it.
func testSQLReleaseWakes(t *testing.T, e *env) {
	c := e.sqlClient(t)
	w := NewWatcher()
	locker := e.watchedLocker(t, w)
	id := newID()
	g := sqlAcquire(t, c, id)

	waiter := lockAsync(withinContext(t), locker, id)
	Receive(t, "a waiter in line", w.InLine())
	sqlRelease(t, c, id, g.Token)

	released := Now(t, e.direct)
	lock := waiter.get(t)

	// A waiter that listens and hears nothing looks seconds later.
	if late := grantedAt(lock).Sub(released); late > poll {
		t.Errorf("granted %s after the release, want at most %s", late, poll)
	}

	if lock.Token() <= g.Token {
		t.Errorf("token %d after %d", lock.Token(), g.Token)
	}

	unlock(t, lock)
	w.Check(t)
}

// testSQLAssertHeld: from assert_held to the end of its transaction no client is granted the lock. A
// renewal doesn't wait for that transaction for long.
func testSQLAssertHeld(t *testing.T, e *env) {
	c := e.sqlClient(t)

	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
		id := newID()
		g := sqlAcquire(t, c, id)
		tx := begin(t, e.direct, level)

		if err := c.AssertHeld(t.Context(), tx, id, g.Token); err != nil {
			t.Fatal(err)
		}

		if _, _, err := c.Renew(t.Context(), id, g.Token, minute); SQLState(err) != "55P03" {
			t.Errorf("renew_lock beside assert_held: %v, want SQLSTATE 55P03", err)
		}

		released := make(chan error, 1)
		granted := make(chan SQLGrant, 1)

		go func() {
			_, err := c.Release(t.Context(), id, g.Token)
			released <- err

			g, err := c.Acquire(t.Context(), id, minute, "other")
			if err != nil {
				t.Error(err)
			}

			granted <- g
		}()

		Await(t, "the release waits for the transaction", func() bool { return RowWaits(t, e.direct) > 0 })

		if len(released) > 0 {
			t.Error("the lock was released while a transaction relied on it")
		}

		// In it the lock is held to the end.
		if err := c.AssertHeld(t.Context(), tx, id, g.Token); err != nil {
			t.Error(err)
		}

		if err := tx.Commit(); err != nil {
			t.Errorf("%s: a transaction under a lock that was held: %v", level, err)
		}

		Must(t, Receive(t, "the release", released))

		if next := Receive(t, "the grant", granted); !next.Acquired || next.Token <= g.Token {
			t.Errorf("%+v after token %d", next, g.Token)
		}

		// In the stricter levels a change since the snapshot isn't seen.
		tx = begin(t, e.direct, level)

		if _, err := tx.ExecContext(t.Context(), "SELECT 1 FROM "+e.table()); err != nil {
			t.Fatal(err)
		}

		status := e.get(t, id)

		if until, held, err := c.Renew(t.Context(), id, status.Generation, time.Hour); err != nil || !held {
			t.Fatal(until, held, err)
		}

		err := c.AssertHeld(t.Context(), tx, id, status.Generation)
		if want := map[bool]string{true: "", false: "40001"}[level == sql.LevelReadCommitted]; SQLState(err) != want || want == "" && err != nil {
			t.Errorf("%s: assert_held after a renewal: %v, want SQLSTATE %q", level, err, want)
		}

		_ = tx.Rollback()
	}
}

// testSQLBadInput: each function refuses what can't be right, with SQLSTATE 22023. Ids come through as
// they are.
func testSQLBadInput(t *testing.T, e *env) {
	c := e.sqlClient(t)
	ctx := t.Context()
	long := strings.Repeat("x", pglocker.MaxLockIDBytes+1)

	call := map[string]string{
		"acquire_lock": "$1, $2::interval, $3", "renew_lock": "$1, $2::bigint, $3::interval",
		"release_lock": "$1, $2::bigint", "assert_held": "$1, $2::bigint",
	}

	for _, bad := range []struct {
		function string
		args     []any
		says     string
	}{
		{"acquire_lock", []any{nil, "1 min", "me"}, "lock_id"},
		{"acquire_lock", []any{"", "1 min", "me"}, "lock_id"},
		{"acquire_lock", []any{long, "1 min", "me"}, "1024 bytes"},
		{"acquire_lock", []any{pglocker.ReservedPrefix + "election:a", "1 min", "me"}, "reserved"},
		{"acquire_lock", []any{"a", nil, "me"}, "ttl"},
		{"acquire_lock", []any{"a", "999 microseconds", "me"}, "ttl"},
		{"acquire_lock", []any{"a", "-1 hour", "me"}, "ttl"},
		{"acquire_lock", []any{"a", "36500 days 1 microsecond", "me"}, "ttl"},
		{"acquire_lock", []any{"a", "1 min", nil}, "owner"},
		{"acquire_lock", []any{"a", "1 min", ""}, "owner"},
		{"acquire_lock", []any{"a", "1 min", strings.Repeat("o", 256)}, "owner"},
		{"renew_lock", []any{nil, 1, "1 min"}, "lock_id"},
		{"renew_lock", []any{pglocker.ReservedPrefix, 1, "1 min"}, "reserved"},
		{"renew_lock", []any{"a", nil, "1 min"}, "token"},
		{"renew_lock", []any{"a", 1, "0"}, "ttl"},
		{"release_lock", []any{"", 1}, "lock_id"},
		{"release_lock", []any{pglocker.ReservedPrefix, 1}, "reserved"},
		{"release_lock", []any{"a", nil}, "token"},
		{"assert_held", []any{long, 1}, "lock_id"},
		{"assert_held", []any{"a", nil}, "token"},
	} {
		_, err := e.direct.ExecContext(ctx, "SELECT "+c.Function(bad.function)+"("+call[bad.function]+")", bad.args...)
		if SQLState(err) != "22023" || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s%.60q: %v, want SQLSTATE 22023 and %q", bad.function, bad.args, err, bad.says)
		}
	}

	// A recipe's row can be asserted, not changed.
	if err := assertedBy(t, c, pglocker.ReservedPrefix+"election:none", 1, sql.LevelDefault); SQLState(err) != lostState {
		t.Errorf("assert_held of an election without a leader: %v, want SQLSTATE %s", err, lostState)
	}

	for _, id := range OddLockIDs() {
		g, err := c.Acquire(ctx, id, minute, "me")
		if err != nil || !g.Acquired && !strings.HasPrefix(g.Holder, "contract#") {
			t.Errorf("acquire_lock of %q: %+v, %v", id, g, err)

			continue
		}

		if status := e.get(t, id); status.Owner != g.Holder || g.Acquired && status.Generation != g.Token {
			t.Errorf("%q: acquire_lock returned %+v, the database shows %+v", id, g, status)
		}
	}
}
