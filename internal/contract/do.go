package contract

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// testDoHolds: fn has the lock in its context while it runs. Afterwards the lock is free.
func testDoHolds(t *testing.T, e *env) {
	ctx := withinContext(t)
	id := newID()

	var held *pglocker.Lock

	err := e.locker.Do(ctx, id, minute, time.Second, func(ctx context.Context) error {
		var ok bool
		if held, ok = pglocker.FromContext(ctx); !ok {
			t.Fatal("FromContext has no lock inside of Do")
		}

		status := e.get(t, id)
		if held.Token() != status.Generation || held.Status() != *status {
			t.Errorf("the lock is %+v with token %d, the database shows %+v", held.Status(), held.Token(), status)
		}

		if held.Context().Err() != nil || ctx.Err() != nil {
			t.Errorf("contexts have ended: the lock's %v, fn's %v", held.Context().Err(), ctx.Err())
		}

		if _, err := e.locker.AcquireLock(ctx, id, minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
			t.Errorf("AcquireLock inside of Do: %v, want ErrAlreadyLocked", err)
		}

		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	e.isFree(t, id)

	if got, want := e.get(t, id).Generation, e.next(held.Token()); got != want {
		t.Errorf("released to generation %d, want %d", got, want)
	}

	if held.Context().Err() == nil {
		t.Error("the context of a released lock has not ended")
	}

	if errors.Is(context.Cause(held.Context()), pglocker.ErrLockLost) {
		t.Error("a released lock counts as lost")
	}

	if _, ok := pglocker.FromContext(ctx); ok {
		t.Error("FromContext has a lock outside of Do")
	}

	// The next holder's token is larger, and its release doesn't wait for a TTL.
	if err := e.locker.Do(ctx, id, minute, time.Second, func(ctx context.Context) error {
		if lock, _ := pglocker.FromContext(ctx); lock.Token() <= held.Token() {
			t.Errorf("token %d after %d", lock.Token(), held.Token())
		}

		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// testDoRenews: the lock outlives its TTL, with the same token.
func testDoRenews(t *testing.T, e *env) {
	const ttl = 2 * time.Second

	id := newID()

	err := e.locker.Do(withinContext(t), id, ttl, ttl/8, func(ctx context.Context) error {
		lock, _ := pglocker.FromContext(ctx)
		granted := *e.get(t, id)

		Await(t, "the lease is renewed past the end of the first", func() bool {
			return ctx.Err() != nil || Now(t, e.direct).After(granted.ExpiresAt)
		})

		status := e.get(t, id)
		if status.Generation != granted.Generation || status.Owner != granted.Owner || !status.ExpiresAt.After(granted.ExpiresAt) {
			t.Errorf("granted %+v, renewed %+v", granted, status)
		}

		if lock.Token() != granted.Generation || !lock.Status().ExpiresAt.After(granted.ExpiresAt) {
			t.Errorf("granted %+v, the lock shows %+v", granted, lock.Status())
		}

		return context.Cause(ctx)
	})
	if err != nil {
		t.Error(err)
	}

	e.isFree(t, id)

	// The interval is Do's argument. Without it this lease is renewed after minutes.
	err = e.locker.Do(withinContext(t), id, 10*minute, 10*time.Millisecond, func(ctx context.Context) error {
		lock, _ := pglocker.FromContext(ctx)
		granted := lock.Status()

		Await(t, "the lease is renewed", func() bool { return lock.Status().ExpiresAt.After(granted.ExpiresAt) })

		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func testDoHeld(t *testing.T, e *env) {
	held := e.acquire(t, newID(), minute)

	err := e.locker.Do(withinContext(t), held.LockID, minute, time.Second, func(context.Context) error {
		t.Error("fn was called")

		return nil
	})
	if !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("Do on a held lock: %v, want ErrAlreadyLocked", err)
	}

	if *e.get(t, held.LockID) != *held {
		t.Errorf("the holder's row changed from %+v to %+v", held, e.get(t, held.LockID))
	}
}

// testDoErrors: Do returns fn's error unchanged.
func testDoErrors(t *testing.T, e *env) {
	id := newID()
	want := errors.New("fn's own")

	got := e.locker.Do(withinContext(t), id, minute, time.Second, func(context.Context) error { return want })
	if got != want { //nolint:errorlint // the very same is what is promised
		t.Errorf("Do returned %#v, want fn's error itself", got)
	}

	e.isFree(t, id)
}

// testDoLeavesByPanic: a panic or a Goexit of fn releases the lock and goes on.
func testDoLeavesByPanic(t *testing.T, e *env) {
	ctx := withinContext(t)
	id := newID()

	func() {
		defer func() {
			if r := recover(); r != "fn's own" {
				t.Errorf("recovered %v, want what fn panicked with", r)
			}
		}()

		_ = e.locker.Do(ctx, id, minute, time.Second, func(context.Context) error { panic("fn's own") })

		t.Error("Do returned after a panic")
	}()

	e.isFree(t, id)

	ended := make(chan bool, 1)

	go func() {
		returned := false
		defer func() { ended <- returned }()

		_ = e.locker.Do(ctx, id, minute, time.Second, func(context.Context) error {
			runtime.Goexit()

			return nil
		})
		returned = true
	}()

	if Receive(t, "Goexit goes on", ended) {
		t.Error("Do returned after a Goexit")
	}

	e.isFree(t, id)
}

// testDoCancelled: the end of the caller's context ends fn's. The lock is held until fn
// returns, and then released.
func testDoCancelled(t *testing.T, e *env) {
	ctx, cancel := context.WithCancelCause(withinContext(t))
	cause := errors.New("the caller's own")
	id := newID()

	err := e.locker.Do(ctx, id, minute, time.Second, func(ctx context.Context) error {
		cancel(cause)

		select {
		case <-ctx.Done():
		case <-time.After(within):
			t.Error("fn's context did not end")
		}

		if !errors.Is(context.Cause(ctx), cause) {
			t.Errorf("fn's context ended for %v, want the caller's cause", context.Cause(ctx))
		}

		if status := e.get(t, id); !status.ExpiresAt.After(Now(t, e.direct)) {
			t.Error("the lock was released while fn still ran")
		}

		return nil
	})
	if err != nil {
		t.Errorf("Do: %v, want fn's nil", err)
	}

	e.isFree(t, id)

	// No lock is taken for a caller whose context has ended.
	err = e.locker.Do(ctx, id, minute, time.Second, func(context.Context) error {
		t.Error("fn was called")

		return nil
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, pglocker.ErrUnknownOutcome) {
		t.Errorf("Do with an ended context: %v, want context.Canceled and that nothing is unknown", err)
	}

	e.isFree(t, id)
}

// testDoLost: when the database shows another holder, the next renewal ends fn's context.
// That holder keeps the lock.
func testDoLost(t *testing.T, e *env) {
	id := newID()
	want := errors.New("fn's own")

	err := e.locker.Do(withinContext(t), id, minute, 50*time.Millisecond, func(ctx context.Context) error {
		e.take(t, id)

		select {
		case <-ctx.Done():
		case <-time.After(within):
			t.Error("fn's context did not end")
		}

		if !errors.Is(ctx.Err(), context.Canceled) || !errors.Is(context.Cause(ctx), pglocker.ErrLockLost) {
			t.Errorf("fn's context ended for %v, cause %v, want ErrLockLost", ctx.Err(), context.Cause(ctx))
		}

		return want
	})
	if !errors.Is(err, pglocker.ErrLockLost) || !errors.Is(err, want) {
		t.Errorf("Do: %v, want ErrLockLost and fn's error", err)
	}

	if status := e.get(t, id); !status.ExpiresAt.After(Now(t, e.direct)) {
		t.Errorf("the lock of another was released: %+v", status)
	}

	// The caller is told of a loss that fn didn't notice.
	id = newID()
	began := time.Now()

	err = e.locker.Do(withinContext(t), id, 10*minute, minute, func(context.Context) error {
		e.take(t, id)

		return nil
	})
	if took := time.Since(began); took > within {
		t.Errorf("Do returned after %s", took)
	}

	if !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Do whose lock was lost unnoticed: %v, want ErrLockLost", err)
	}
}
