package contract

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

func rwLock(t *testing.T, locker *pglocker.Locker, name string, opts ...pglocker.RWLockOption) *pglocker.RWLock {
	t.Helper()

	rw, err := locker.NewRWLock(name, opts...)
	Must(t, err)

	return rw
}

type tryFunc func(ctx context.Context, ttl time.Duration, opts ...pglocker.LockOption) (*pglocker.Access, error)

// access takes access that must be free, for a minute.
func access(t *testing.T, try tryFunc) *pglocker.Access {
	t.Helper()

	a, err := try(withinContext(t), minute)
	if err != nil {
		t.Fatal(err)
	}

	return a
}

// noAccess fails the test unless access is refused.
func noAccess(t *testing.T, what string, try tryFunc) {
	t.Helper()

	if _, err := try(withinContext(t), minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("%s: %v, want ErrAlreadyLocked", what, err)
	}
}

// lockRW is a call of Lock or RLock that waits in line.
func lockRW(ctx context.Context, t *testing.T, w *Watcher, lock tryFunc) call[*pglocker.Access] {
	t.Helper()

	c := async(func() (*pglocker.Access, error) { return lock(ctx, minute) })
	Receive(t, "a waiter in line", w.InLine())

	return c
}

// testRWLock: many readers or one writer, under tokens that grow.
func testRWLock(t *testing.T, e *env) {
	name := newID()
	rw, other := rwLock(t, e.locker, name, pglocker.WithMaxReaders(2)), rwLock(t, e.newLocker(t), name)
	last := int64(0)

	check := func(a *pglocker.Access, reading bool) *pglocker.Access {
		t.Helper()

		if a.Token() <= last || a.Reading() != reading || a.Context().Err() != nil {
			t.Errorf("token %d after %d, reading %t, want %t: %v", a.Token(), last, a.Reading(), reading, a.Context().Err())
		}

		last = a.Token()

		tx := begin(t, e.db, 0)
		defer func() { _ = tx.Rollback() }()

		if err := a.Guard(t.Context(), tx); err != nil {
			t.Errorf("Guard: %v", err)
		}

		return a
	}

	writer := check(access(t, rw.TryLock), false)
	noAccess(t, "TryLock beside a writer", other.TryLock)
	noAccess(t, "TryRLock beside a writer", other.TryRLock)
	leave(t, writer)

	first := check(access(t, rw.TryRLock), true)
	second := check(access(t, other.TryRLock), true)
	noAccess(t, "TryLock beside readers", other.TryLock)

	_, err := rw.TryRLock(withinContext(t), minute)
	if !errors.Is(err, pglocker.ErrTooManyReaders) || !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("the third reader of two: %v, want ErrTooManyReaders", err)
	}

	third := check(access(t, other.TryRLock), true)

	for verb, lock := range map[string]tryFunc{"Lock": rw.Lock, "TryLock": rw.TryLock} {
		if _, err := lock(first.Context(), minute); !errors.Is(err, pglocker.ErrUpgrade) {
			t.Errorf("%s under the context of a reader: %v, want ErrUpgrade", verb, err)
		}
	}

	if _, err := first.Downgrade(t.Context()); !errors.Is(err, pglocker.ErrNotWriting) || first.Context().Err() != nil {
		t.Errorf("Downgrade of a reader: %v, want ErrNotWriting", err)
	}

	leave(t, first)
	leave(t, second)
	leave(t, third)

	writer = check(access(t, rw.TryLock), false)

	for verb, lock := range map[string]tryFunc{"Lock": rw.Lock, "RLock": rw.RLock} {
		if _, err := lock(writer.Context(), minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
			t.Errorf("%s under the context of a writer: %v, want ErrAlreadyLocked", verb, err)
		}
	}

	reader, err := writer.Downgrade(withinContext(t))
	Must(t, err)
	check(reader, true)

	if writer.Context().Err() == nil || !errors.Is(writer.Unlock(t.Context()), pglocker.ErrAlreadyUnlocked) {
		t.Error("the writer goes on beside what it was downgraded to")
	}

	noAccess(t, "TryLock beside a downgraded writer", other.TryLock)
	leave(t, check(access(t, other.TryRLock), true))
	leave(t, reader)
	leave(t, check(access(t, other.TryLock), false))

	if _, err := writer.Downgrade(t.Context()); !errors.Is(err, pglocker.ErrAlreadyUnlocked) {
		t.Errorf("Downgrade of what was unlocked: %v, want ErrAlreadyUnlocked", err)
	}
}

// testRWLockWaits: a writer that waits stops new readers, until it has left. Readers and writers
// are told of each other's releases.
func testRWLockWaits(t *testing.T, e *env) {
	w := NewWatcher()
	locker := e.watchedLocker(t, w)
	name := newID()
	here, there := rwLock(t, locker, name), rwLock(t, e.newLocker(t), name)
	ctx := withinContext(t)

	for _, holder := range []*pglocker.RWLock{here, there} {
		first, second := access(t, holder.TryRLock), access(t, there.TryRLock)
		writer := lockRW(ctx, t, w, here.Lock)

		Await(t, "a waiting writer stops readers", func() bool {
			a, err := there.TryRLock(ctx, minute)
			if err == nil {
				leave(t, a)
			}

			return errors.Is(err, pglocker.ErrAlreadyLocked) && !errors.Is(err, pglocker.ErrTooManyReaders)
		})

		// A reader that is there may read more.
		nested, err := there.TryRLock(second.Context(), minute)
		Must(t, err)
		leave(t, nested)

		reader := lockRW(ctx, t, w, here.RLock)
		leave(t, first)
		writer.waits(t, "a reader is left")
		leave(t, second)

		granted := writer.get(t)
		reader.waits(t, "a writer holds it")
		leave(t, granted)
		leave(t, reader.get(t))
	}

	// A writer that leaves stops nobody.
	held := access(t, there.TryRLock)
	short, cancel := context.WithCancel(ctx)
	writer := lockRW(short, t, w, here.Lock)
	intent := "pglocker:rwlock:" + name + ":intent"

	Await(t, "an intent", func() bool {
		status, err := e.locker.GetLockStatus(ctx, intent)

		return err == nil && status.ExpiresAt.After(Now(t, e.direct))
	})
	cancel()

	if err := Receive(t, "Lock returns", writer.errs); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock whose context was cancelled: %v, want context.Canceled", err)
	}

	began := Now(t, e.direct)
	again, err := there.RLock(ctx, minute)
	Must(t, err)
	leave(t, again)

	if took := Now(t, e.direct).Sub(began); took > 5*time.Second {
		t.Errorf("a writer that has left stopped readers for %s", took)
	}

	leave(t, held)
	w.Check(t)
	Must(t, locker.Close(ctx))
}

// testDowngradeRace: a writer that waits never gets in between.
func testDowngradeRace(t *testing.T, e *env) {
	w := NewWatcher()
	locker := e.watchedLocker(t, w)
	name := newID()
	here, there := rwLock(t, locker, name), rwLock(t, e.newLocker(t), name)
	ctx := withinContext(t)

	for _, holder := range []*pglocker.RWLock{here, there} {
		held := access(t, holder.TryLock)
		next := lockRW(ctx, t, w, here.Lock)

		reader, err := held.Downgrade(ctx)
		Must(t, err)
		next.waits(t, "a reader holds it")
		leave(t, reader)

		writer := next.get(t)
		if reader.Token() <= held.Token() || writer.Token() <= reader.Token() {
			t.Errorf("tokens %d, %d, %d", held.Token(), reader.Token(), writer.Token())
		}

		leave(t, writer)
	}

	w.Check(t)
	Must(t, locker.Close(ctx))
}
