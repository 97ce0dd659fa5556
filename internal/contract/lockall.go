package contract

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// newIDs returns ids that were not used before, sorted.
func newIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = newID()
	}

	slices.Sort(ids)

	return ids
}

func tryLockAll(t *testing.T, locker *pglocker.Locker, ids ...string) *pglocker.MultiLock {
	t.Helper()

	multi, err := locker.TryLockAll(t.Context(), ids, minute)
	if err != nil {
		t.Fatalf("TryLockAll: %v", err)
	}

	return multi
}

// isHeldAlone fails unless the error names that lock.
func isHeldAlone(t *testing.T, what string, err error, id string) {
	t.Helper()

	var held *pglocker.HeldError
	if !errors.As(err, &held) || !errors.Is(err, pglocker.ErrAlreadyLocked) || held.LockID != id {
		t.Errorf("%s: %v, want a *HeldError of %q", what, err, id)
	}
}

// areFree fails unless the locks aren't there or free.
func (e *env) areFree(t *testing.T, ids ...string) {
	t.Helper()

	for _, id := range ids {
		held := Query[bool](t, e.direct,
			"SELECT EXISTS (SELECT FROM "+e.table()+" WHERE lock_id = $1 AND expires_at > clock_timestamp())", id)
		if held {
			t.Errorf("%q is held", id)
		}
	}
}

// testLockAll: all locks are held, or none.
func testLockAll(t *testing.T, e *env) {
	ids := newIDs(4)
	odd := "all {" + ids[0] + `}, "\ NULL` // sorts before the others, and is created by the call
	multi := tryLockAll(t, e.locker, ids[2], odd, ids[0], ids[2], ids[1])
	tokens := multi.Tokens()

	if len(tokens) != 4 {
		t.Errorf("tokens %v, want those of 4 locks", tokens)
	}

	for id, token := range tokens {
		if status, now := e.get(t, id), Now(t, e.direct); status.Generation != token || !status.ExpiresAt.After(now) {
			t.Errorf("token %d of %q, the database shows %+v", token, id, status)
		}
	}

	_, err := e.locker.TryLockAll(t.Context(), []string{ids[3], ids[1], ids[2]}, minute)
	isHeldAlone(t, "TryLockAll of locks of which two are held", err, ids[1])
	e.areFree(t, ids[3])

	guarded := func(tx *sql.Tx) error { return multi.Guard(t.Context(), tx) }
	if err := e.within(t, guarded); err != nil {
		t.Errorf("Guard: %v", err)
	}

	Must(t, multi.Unlock(withinContext(t)))
	e.areFree(t, append(ids, odd)...)

	if err := multi.Unlock(withinContext(t)); !errors.Is(err, pglocker.ErrAlreadyUnlocked) {
		t.Errorf("the second Unlock: %v, want ErrAlreadyUnlocked", err)
	}

	if err := e.within(t, guarded); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Guard after Unlock: %v, want ErrLockLost", err)
	}

	if cause := context.Cause(multi.Context()); !errors.Is(cause, context.Canceled) {
		t.Errorf("the context has ended because of %v, want context.Canceled", cause)
	}

	again := tryLockAll(t, e.locker, append(ids, odd)...)
	for id, token := range again.Tokens() {
		if before := tokens[id]; token <= before {
			t.Errorf("token %d of %q after %d", token, id, before)
		}
	}

	Must(t, again.Unlock(withinContext(t)))
}

// within runs fn in a transaction that is rolled back.
func (e *env) within(t *testing.T, fn func(tx *sql.Tx) error) error {
	t.Helper()

	tx := begin(t, e.db, sql.LevelDefault)
	defer func() { Must(t, tx.Rollback()) }()

	return fn(tx)
}

// testLockAllWaits: while it waits, LockAll holds nothing. It is granted the locks when the last of them is
// released. Waiters for single locks are handed theirs at the end.
func testLockAllWaits(t *testing.T, e *env) {
	w := NewWatcher()
	locker := e.watchedLocker(t, w)

	for name, holder := range map[string]*pglocker.Locker{"the same locker": locker, "another": e.newLocker(t)} {
		ctx := withinContext(t)
		ids := newIDs(3)
		first, last := tryLock(t, holder, ids[0]), tryLock(t, holder, ids[2])
		waiter := lockAllAsync(ctx, locker, ids[1], ids[2], ids[0])
		Receive(t, "LockAll in line", w.InLine())
		e.areFree(t, ids[1])

		unlock(t, first)
		unlock(t, last)

		released := Now(t, e.direct)
		multi := waiter.get(t)

		most := poll
		if e.isPlain() { // a round trip for each lock
			most *= 10
		}

		if late := Now(t, e.direct).Sub(released); late > most {
			t.Errorf("by %s: granted %s after the release, want at most %s", name, late, most)
		}

		var narrow []asked
		for _, id := range ids {
			narrow = append(narrow, lockAsync(ctx, locker, id))
			Receive(t, "Lock in line", w.InLine())
		}

		Must(t, multi.Unlock(ctx))

		for i, a := range narrow {
			lock := a.get(t)
			if lock.Token() <= multi.Tokens()[ids[i]] {
				t.Errorf("token %d after %d", lock.Token(), multi.Tokens()[ids[i]])
			}

			unlock(t, lock)
		}
	}

	CloseLocker(t, locker)
	w.Check(t)
}

type askedAll struct {
	locks chan *pglocker.MultiLock
	errs  chan error
}

// lockAllAsync calls LockAll, with a TTL of a minute, in a goroutine that ends with ctx.
func lockAllAsync(ctx context.Context, locker *pglocker.Locker, ids ...string) askedAll {
	a := askedAll{make(chan *pglocker.MultiLock, 1), make(chan error, 1)}

	go func() {
		multi, err := locker.LockAll(ctx, ids, minute)
		if err != nil {
			a.errs <- err
		} else {
			a.locks <- multi
		}
	}()

	return a
}

func (a askedAll) get(t *testing.T) *pglocker.MultiLock {
	t.Helper()

	select {
	case multi := <-a.locks:
		return multi
	case err := <-a.errs:
		t.Fatalf("LockAll: %v", err)
	case <-time.After(within):
		t.Fatalf("in vain for %s: LockAll returns", within)
	}

	panic("unreachable")
}

// testLockAllLost: one that is lost loses all. The others are free after Unlock.
func testLockAllLost(t *testing.T, e *env) {
	ids := newIDs(3)

	multi, err := e.locker.TryLockAll(t.Context(), ids, minute, pglocker.WithRelockInterval(10*time.Millisecond))
	Must(t, err)
	e.take(t, ids[1])
	Receive(t, "the end of the context", multi.Context().Done())

	if cause := context.Cause(multi.Context()); !errors.Is(cause, pglocker.ErrLockLost) || !strings.Contains(cause.Error(), ids[1]) {
		t.Errorf("the context has ended because of %v, want ErrLockLost of %q", cause, ids[1])
	}

	err = e.within(t, func(tx *sql.Tx) error { return multi.Guard(t.Context(), tx) })
	if !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Guard: %v, want ErrLockLost", err)
	}

	if err := multi.Unlock(withinContext(t)); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Unlock: %v, want ErrLockLost", err)
	}

	e.areFree(t, ids[0], ids[2])

	// Nobody has noticed it yet.
	multi = tryLockAll(t, e.locker, ids[0], ids[2])
	e.take(t, ids[2])

	err = e.within(t, func(tx *sql.Tx) error { return multi.Guard(t.Context(), tx) })
	if !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Guard of locks of which one is lost: %v, want ErrLockLost", err)
	}

	if err := multi.Unlock(withinContext(t)); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Unlock of locks of which one is lost: %v, want ErrLockLost", err)
	}

	e.areFree(t, ids[0])
}

// testDoAll: fn has the locks while it runs, and can't wait for them.
func testDoAll(t *testing.T, e *env) {
	ctx := withinContext(t)
	ids := newIDs(2)
	other := errors.New("fn's")

	err := e.locker.DoAll(ctx, ids, minute, time.Second, func(ctx context.Context) error {
		if _, ok := pglocker.FromContext(ctx); ok {
			t.Error("FromContext has one of several locks")
		}

		if err := e.within(t, func(tx *sql.Tx) error { return pglocker.Guard(ctx, tx) }); err != nil {
			t.Errorf("Guard inside of DoAll: %v", err)
		}

		_, err := e.locker.LockAll(ctx, []string{newID(), ids[1]}, minute)
		isHeldAlone(t, "LockAll of one of the locks, inside of DoAll", err, ids[1])

		_, err = e.locker.Lock(ctx, ids[0], minute)
		isHeldAlone(t, "Lock of one of the locks, inside of DoAll", err, ids[0])

		err = e.newLocker(t).DoAll(context.WithoutCancel(ctx), ids, minute, time.Second, func(context.Context) error {
			t.Error("two had the locks at once")

			return nil
		})
		isHeldAlone(t, "another DoAll", err, ids[0])

		return other
	})
	if !errors.Is(err, other) || errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("DoAll: %v, want fn's error", err)
	}

	e.areFree(t, ids...)

	err = e.locker.Do(ctx, ids[0], minute, time.Second, func(ctx context.Context) error {
		_, err := e.locker.LockAll(ctx, ids, minute)

		return err
	})
	isHeldAlone(t, "LockAll of a lock that is held by Do", err, ids[0])
}

// testLockAllInput: mistakes are found before anything is sent.
func testLockAllInput(t *testing.T, e *env) {
	nothing := func(context.Context) error { return nil }

	for _, test := range []struct {
		ids  []string
		ttl  time.Duration
		fn   func(context.Context) error
		want error
	}{
		{nil, minute, nothing, pglocker.ErrNoLockIDs},
		{newIDs(pglocker.MaxLockIDs + 1), minute, nothing, pglocker.ErrTooManyLockIDs},
		{[]string{newID(), ""}, minute, nothing, pglocker.ErrInvalidLockID},
		{[]string{newID(), "pglocker:watermark"}, minute, nothing, pglocker.ErrReservedLockID},
		{newIDs(2), 0, nothing, pglocker.ErrInvalidTTL},
		{newIDs(2), minute, nil, pglocker.ErrFuncIsNil},
	} {
		if err := e.locker.DoAll(t.Context(), test.ids, test.ttl, time.Millisecond, test.fn); !errors.Is(err, test.want) {
			t.Errorf("DoAll: %v, want %v", err, test.want)
		}

		if test.fn == nil {
			continue
		}

		if _, err := e.locker.LockAll(t.Context(), test.ids, test.ttl); !errors.Is(err, test.want) {
			t.Errorf("LockAll: %v, want %v", err, test.want)
		}
	}

	if err := e.locker.DoAll(t.Context(), newIDs(2), minute, minute, nothing); !errors.Is(err, pglocker.ErrInvalidRelockInterval) {
		t.Errorf("DoAll: %v, want ErrInvalidRelockInterval", err)
	}
}
