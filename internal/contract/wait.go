package contract

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// poll is how long after the end of a lease a waiter may be granted the lock: the poll in
// G7's "TTL plus one poll", and what a busy machine adds.
const poll = 400*time.Millisecond + time.Second

// testLockWaits: a waiter is granted the lock in whatever way it becomes free.
func testLockWaits(t *testing.T, e *env) {
	w := NewWatcher()
	locker := e.watchedLocker(t, w)

	for name, holder := range map[string]*pglocker.Locker{"the same locker": locker, "another": e.newLocker(t)} {
		ctx := withinContext(t)

		for verb, hold := range map[string]func(id string) (token int64, release func() error){
			"Unlock": func(id string) (int64, func() error) {
				lock := tryLock(t, holder, id)

				return lock.Token(), func() error { return lock.Unlock(ctx) }
			},
			"ReleaseLock": func(id string) (int64, func() error) {
				status, err := holder.AcquireLock(ctx, id, minute)
				if err != nil {
					t.Fatal(err)
				}

				return status.Generation, func() error { return holder.ReleaseLock(ctx, status) }
			},
		} {
			id := newID()
			token, release := hold(id)
			waiter := lockAsync(ctx, locker, id)
			Receive(t, "a waiter in line", w.InLine())

			if err := release(); err != nil {
				t.Errorf("%s by %s: %v", verb, name, err)
			}

			released := Now(t, e.direct)
			lock := waiter.get(t)

			// If the waiter relied on a notification and heard none, it is granted the lock
			// seconds later, when it renews its mark.
			if late := grantedAt(lock).Sub(released); late > poll {
				t.Errorf("%s by %s: granted %s after the release, want at most %s", verb, name, late, poll)
			}

			if lock.Token() <= token {
				t.Errorf("%s by %s: token %d after %d", verb, name, lock.Token(), token)
			}

			if status := e.get(t, id); lock.Status() != *status || lock.Token() != status.Generation {
				t.Errorf("%s by %s: the lock is %+v with token %d, the database shows %+v",
					verb, name, lock.Status(), lock.Token(), status)
			}

			unlock(t, lock)
			e.isFree(t, id)
		}
	}

	w.Check(t)
}

// testLockAfterCrash: the lock of a holder that is gone is granted when its lease ends, and
// not more than a poll later.
func testLockAfterCrash(t *testing.T, e *env) {
	ctx := withinContext(t)
	id := newID()

	crashed, err := e.newLocker(t).AcquireLock(ctx, id, time.Second)
	if err != nil {
		t.Fatal(err)
	}

	lock := lockAsync(ctx, e.locker, id).get(t)
	if late := grantedAt(lock).Sub(crashed.ExpiresAt); late < 0 || late > poll {
		t.Errorf("granted %s after the end of the lease, want at least 0 and at most %s", late, poll)
	}

	if lock.Token() <= crashed.Generation {
		t.Errorf("token %d after %d", lock.Token(), crashed.Generation)
	}

	unlock(t, lock)
}

// testLockGivesUp: when its context ends, a waiter is told so, and who holds the lock. The
// holder and the next waiters notice nothing.
func testLockGivesUp(t *testing.T, e *env) {
	w := NewWatcher()
	locker := e.watchedLocker(t, w)
	held := tryLock(t, e.locker, newID())
	id := held.Status().LockID

	ctx, cancel := context.WithCancel(withinContext(t))
	first := lockAsync(ctx, locker, id)
	Receive(t, "the first waits", w.InLine())

	second := lockAsync(withinContext(t), locker, id)
	Receive(t, "the second waits", w.InLine())

	// The first waiter has requested the lock before it waits.
	cancel()

	err := first.fail(t)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Lock with a context that was cancelled: %v, want context.Canceled", err)
	}

	isHeldBy(t, "Lock with a context that was cancelled", err, held)

	late := e.newLocker(t)
	Must(t, Second(late.Dialect(withinContext(t)))) // its first look at the table is not in the limit

	ctx, cancel = context.WithTimeout(withinContext(t), 500*time.Millisecond)
	defer cancel()

	err = lockAsync(ctx, late, id).fail(t)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Lock with a deadline: %v, want context.DeadlineExceeded", err)
	}

	isHeldBy(t, "Lock with a deadline", err, held)

	if got := e.get(t, id); *got != held.Status() {
		t.Errorf("held %+v, and after others gave up %+v", held.Status(), got)
	}

	unlock(t, held)

	lock := second.get(t)
	if lock.Token() <= held.Token() {
		t.Errorf("token %d after %d", lock.Token(), held.Token())
	}

	unlock(t, lock)
	w.Check(t)
}

// testLockInOrder: the waiters of one locker are granted the lock in the order in which
// they came.
func testLockInOrder(t *testing.T, e *env) {
	const waiters = 8

	w := NewWatcher()
	locker := e.watchedLocker(t, w)

	for _, holder := range []*pglocker.Locker{locker, e.newLocker(t)} {
		var (
			ctx   = withinContext(t)
			held  = tryLock(t, holder, newID())
			id    = held.Status().LockID
			calls [waiters]asked
			last  = held.Token()
		)

		for i := range calls {
			calls[i] = lockAsync(ctx, locker, id)
			Receive(t, "a waiter in line", w.InLine())
		}

		unlock(t, held)

		for i, call := range calls {
			lock := call.get(t)
			if lock.Token() <= last {
				t.Errorf("waiter %d has token %d after %d", i, lock.Token(), last)
			}

			for j, other := range calls[i+1:] {
				if len(other.locks) > 0 {
					t.Errorf("waiter %d was granted the lock while waiter %d held it", i+1+j, i)
				}
			}

			last = lock.Token()
			unlock(t, lock)
		}

		e.isFree(t, id)
	}

	w.Check(t)
}

// testCloseWaitersAndHolders: Close releases what is held, whatever its holders do, and
// ends all waits. Locks of others stay.
func testCloseWaitersAndHolders(t *testing.T, e *env) {
	const locks = 12

	ctx := withinContext(t)
	w := NewWatcher()
	locker := e.watchedLocker(t, w)
	strangers := tryLock(t, e.locker, newID())

	var (
		held    [locks]*pglocker.Lock
		waiters [locks]asked
	)

	for i := range held {
		held[i] = tryLock(t, locker, newID())
		id := strangers.Status().LockID

		if i%2 == 0 {
			id = held[i].Status().LockID // a waiter for a lock of this locker is sent away too
		}

		waiters[i] = lockAsync(ctx, locker, id)
		Receive(t, "a waiter in line", w.InLine())
	}

	if err := locker.Close(ctx); err != nil {
		t.Fatal(err)
	}

	for i, lock := range held {
		if cause := context.Cause(lock.Context()); !errors.Is(cause, pglocker.ErrClosed) {
			t.Errorf("lock %d ended for %v, want ErrClosed", i, cause)
		}

		e.isFree(t, lock.Status().LockID)

		if err := lock.Unlock(ctx); !errors.Is(err, pglocker.ErrAlreadyUnlocked) {
			t.Errorf("Unlock after Close: %v, want ErrAlreadyUnlocked", err)
		}

		if err := waiters[i].fail(t); !errors.Is(err, pglocker.ErrClosed) {
			t.Errorf("Lock of a locker that is closed meanwhile: %v, want ErrClosed", err)
		}
	}

	if got := e.get(t, strangers.Status().LockID); *got != strangers.Status() {
		t.Errorf("the lock of another was %+v and is %+v", strangers.Status(), got)
	}

	for verb, lock := range map[string]func(context.Context, string, time.Duration, ...pglocker.LockOption) (*pglocker.Lock, error){
		"TryLock": locker.TryLock, "Lock": locker.Lock,
	} {
		if _, err := lock(ctx, newID(), minute); !errors.Is(err, pglocker.ErrClosed) {
			t.Errorf("%s of a closed locker: %v, want ErrClosed", verb, err)
		}
	}

	unlock(t, strangers)
	w.Check(t)
}
