package contract

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// testLockOptions: all methods that take options refuse senseless values.
func testLockOptions(t *testing.T, e *env) {
	ctx := withinContext(t)
	id := newID()

	for _, bad := range []struct {
		opt  pglocker.LockOption
		want error
	}{
		{pglocker.WithRelockInterval(0), pglocker.ErrInvalidRelockInterval},
		{pglocker.WithRelockInterval(-1), pglocker.ErrInvalidRelockInterval},
		{pglocker.WithRelockInterval(minute), pglocker.ErrInvalidRelockInterval},
		{pglocker.WithWait(-1), pglocker.ErrInvalidWait},
		{pglocker.WithMinHold(-1), pglocker.ErrInvalidMinHold},
		{pglocker.WithMinHold(pglocker.MaxTTL + 1), pglocker.ErrInvalidMinHold},
	} {
		_, tryErr := e.locker.TryLock(ctx, id, minute, bad.opt)
		_, lockErr := e.locker.Lock(ctx, id, minute, bad.opt)
		doErr := e.locker.Do(ctx, id, minute, time.Second, func(context.Context) error {
			t.Error("fn was called")

			return nil
		}, bad.opt)

		for _, err := range []error{tryErr, lockErr, doErr} {
			if !errors.Is(err, bad.want) {
				t.Errorf("%v, want %v", err, bad.want)
			}
		}
	}

	for name, bad := range BadLockIDs() {
		_, tryErr := e.locker.TryLock(ctx, bad, minute)
		_, lockErr := e.locker.Lock(ctx, bad, minute)

		if !errors.Is(tryErr, pglocker.ErrInvalidLockID) || !errors.Is(lockErr, pglocker.ErrInvalidLockID) {
			t.Errorf("lock id that is %s: %v, %v, want ErrInvalidLockID", name, tryErr, lockErr)
		}
	}

	for _, ttl := range BadTTLs() {
		_, tryErr := e.locker.TryLock(ctx, id, ttl)
		_, lockErr := e.locker.Lock(ctx, id, ttl)

		if !errors.Is(tryErr, pglocker.ErrInvalidTTL) || !errors.Is(lockErr, pglocker.ErrInvalidTTL) {
			t.Errorf("TTL of %s: %v, %v, want ErrInvalidTTL", ttl, tryErr, lockErr)
		}
	}

	if _, err := e.locker.GetLockStatus(ctx, id); !errors.Is(err, pglocker.ErrLockNotFound) {
		t.Errorf("a refused call left a lock: %v", err)
	}

	// The option overrides Do's argument. Without it this lease is renewed after three
	// minutes.
	err := e.locker.Do(ctx, id, 10*minute, 20*minute, func(context.Context) error {
		granted := e.get(t, id).ExpiresAt

		Await(t, "the lease is renewed", func() bool { return e.get(t, id).ExpiresAt.After(granted) })

		return nil
	}, pglocker.WithRelockInterval(10*time.Millisecond))
	if err != nil {
		t.Error(err)
	}
}

// testWithWait: TryLock and Do wait for that long, and then return what they would have
// returned at once.
func testWithWait(t *testing.T, e *env) {
	// The first request counts too: a wait follows only if it is answered in that time.
	const limit = 500 * time.Millisecond

	ctx := withinContext(t)
	w := NewWatcher()
	locker := e.watchedLocker(t, w)
	held := tryLock(t, e.locker, newID())
	id := held.Status().LockID
	Must(t, Second(locker.Dialect(ctx))) // its first look at the table is not in the limit
	none := func(context.Context) error { return nil }

	for verb, call := range map[string]func() error{
		"TryLock": func() error {
			_, err := locker.TryLock(ctx, id, minute, pglocker.WithWait(limit))

			return err
		},
		"Lock": func() error {
			_, err := locker.Lock(ctx, id, minute, pglocker.WithWait(limit))

			return err
		},
		"Do": func() error { return locker.Do(ctx, id, minute, time.Second, none, pglocker.WithWait(limit)) },
	} {
		began := time.Now()
		err := call()

		if took := time.Since(began); took < limit {
			t.Errorf("%s waited for %s, want %s", verb, took, limit)
		}

		isHeldBy(t, verb, err, held)

		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v, but the caller's context has not ended", verb, err)
		}

		Receive(t, "it has waited", w.InLine())
	}

	// The caller's context still ends the wait.
	short, cancel := context.WithCancel(ctx)
	waiter := lockAsync(short, locker, id, pglocker.WithWait(minute))
	Receive(t, "a waiter in line", w.InLine())
	cancel()

	if err := waiter.fail(t); !errors.Is(err, context.Canceled) || !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("Lock whose context ends first: %v, want context.Canceled and ErrAlreadyLocked", err)
	}

	// A lock that becomes free in time is granted.
	done := make(chan error, 1)

	go func() {
		done <- locker.Do(ctx, id, minute, time.Second, func(ctx context.Context) error {
			if lock, _ := pglocker.FromContext(ctx); lock.Token() <= held.Token() {
				t.Errorf("token %d after %d", lock.Token(), held.Token())
			}

			return nil
		}, pglocker.WithWait(minute))
	}()

	Receive(t, "Do waits", w.InLine())
	unlock(t, held)

	if err := Receive(t, "Do returns", done); err != nil {
		t.Error(err)
	}

	w.Check(t)
}

// testMinHold: a lock that is unlocked early stays held. Unlock doesn't wait for that, and
// a waiter is granted the lock right after it.
func testMinHold(t *testing.T, e *env) {
	const hold = time.Second

	ctx := withinContext(t)
	w := NewWatcher()
	locker := e.watchedLocker(t, w)

	for name, holder := range map[string]*pglocker.Locker{"the same locker": locker, "another": e.newLocker(t)} {
		lock := tryLock(t, holder, newID(), pglocker.WithMinHold(hold))
		id := lock.Status().LockID
		granted := grantedAt(lock)
		waiter := lockAsync(ctx, locker, id)
		Receive(t, "a waiter in line", w.InLine())
		unlock(t, lock)

		if lock.Context().Err() == nil {
			t.Errorf("%s: the context of an unlocked lock has not ended", name)
		}

		_, err := holder.TryLock(ctx, id, minute)

		var held *pglocker.HeldError
		if !errors.As(err, &held) || held.Remaining > hold || held.Generation <= lock.Token() || held.Owner != "" {
			t.Errorf("%s: TryLock within the hold: %v, want it held, without a holder, for up to %s", name, err, hold)
		}

		next := waiter.get(t)

		at := grantedAt(next).Sub(granted)
		if at < hold || at > hold+poll {
			t.Errorf("%s: granted %s after the grant that was held for %s", name, at, hold)
		}

		if next.Token() <= lock.Token() {
			t.Errorf("%s: token %d after %d", name, next.Token(), lock.Token())
		}

		unlock(t, next)
	}

	// A hold that is over costs nothing. One above the TTL is valid.
	lock := tryLock(t, e.locker, newID(), pglocker.WithMinHold(time.Nanosecond))
	unlock(t, lock)
	e.isFree(t, lock.Status().LockID)

	id := newID()

	err := e.locker.Do(ctx, id, time.Second, time.Second/2, func(context.Context) error { return nil }, pglocker.WithMinHold(minute))
	if err != nil {
		t.Fatal(err)
	}

	if left := e.get(t, id).ExpiresAt.Sub(Now(t, e.direct)); left < minute/2 || left > minute {
		t.Errorf("held for another %s after Do, want about %s", left, minute)
	}
}
