package contract

import (
	"context"
	"errors"
	"net/url"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// testClosed: a closed locker sends nothing more, and says that it is closed.
func testClosed(t *testing.T, e *env) {
	ctx := withinContext(t)
	locker := e.newLocker(t)
	status := e.acquire(t, newID(), minute)

	for range 2 {
		if err := locker.Close(ctx); err != nil {
			t.Fatal(err)
		}
	}

	errs := make(map[string]error)

	_, errs["CreateLock"] = locker.CreateLock(ctx, status.LockID)
	_, errs["GetLockStatus"] = locker.GetLockStatus(ctx, status.LockID)
	_, errs["AcquireLock"] = locker.AcquireLock(ctx, status.LockID, minute)
	_, errs["RefreshLock"] = locker.RefreshLock(ctx, status, minute)
	errs["ReleaseLock"] = locker.ReleaseLock(ctx, status)
	errs["StartRelocker"] = locker.StartRelocker(ctx, status, minute, time.Second)
	errs["Do"] = locker.Do(ctx, status.LockID, minute, time.Second, func(context.Context) error { return nil })
	_, errs["Lock"] = locker.Lock(ctx, status.LockID, minute)
	_, errs["TryLock"] = locker.TryLock(ctx, status.LockID, minute)
	_, errs["TryLock with an invalid TTL"] = locker.TryLock(ctx, status.LockID, 0)

	for verb, err := range errs {
		if !errors.Is(err, pglocker.ErrClosed) {
			t.Errorf("%s of a closed locker: %v, want ErrClosed", verb, err)
		}
	}

	if *e.get(t, status.LockID) != *status {
		t.Errorf("closing another locker changed %+v to %+v", status, e.get(t, status.LockID))
	}
}

// testDoClosed: Close ends fn's context, and waits for fn and for the release.
func testDoClosed(t *testing.T, e *env) {
	var (
		locker   = e.newLocker(t)
		id       = newID()
		running  = make(chan struct{})
		mayLeave = make(chan struct{})
		done     = make(chan error, 1)
		closed   = make(chan error, 1)
	)

	go func() {
		done <- locker.Do(withinContext(t), id, minute, time.Second, func(ctx context.Context) error {
			close(running)
			<-ctx.Done()
			<-mayLeave

			return context.Cause(ctx)
		})
	}()

	Receive(t, "fn runs", running)

	// A Close whose context ends leaves the rest to go on.
	left, cancel := context.WithCancel(t.Context())
	cancel()

	if err := locker.Close(left); !errors.Is(err, context.Canceled) {
		t.Errorf("Close with an ended context: %v, want context.Canceled", err)
	}

	go func() { closed <- locker.Close(withinContext(t)) }()

	select {
	case err := <-closed:
		t.Errorf("Close returned %v while fn ran", err)
	case err := <-done:
		t.Errorf("Do returned %v while fn ran", err)
	case <-time.After(50 * time.Millisecond): // long enough for one that doesn't wait
	}

	if status := e.get(t, id); !status.ExpiresAt.After(Now(t, e.direct)) {
		t.Error("the lock was released while fn still ran")
	}

	close(mayLeave)

	if err := Receive(t, "Close returns", closed); err != nil {
		t.Error(err)
	}

	e.isFree(t, id) // no later than Close returns

	if err := Receive(t, "Do returns", done); !errors.Is(err, pglocker.ErrClosed) || errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Do: %v, want ErrClosed as fn returned it, and no loss", err)
	}
}

// testCloseWaits: Close waits for calls that are under way, and lets them have their
// answers.
func testCloseWaits(t *testing.T, e *env) {
	if e.Via != nil {
		t.Skip("what waits for a row is found by the name of its connection")
	}

	locker := e.newLocker(t)
	id := newID()

	if _, err := locker.CreateLock(t.Context(), id); err != nil {
		t.Fatal(err)
	}

	stranger, err := e.direct.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}

	defer func() { _ = stranger.Rollback() }() // if the test failed before

	if _, err := stranger.ExecContext(t.Context(), "SELECT FROM "+e.table()+" WHERE lock_id = $1 FOR UPDATE", id); err != nil {
		t.Fatal(err)
	}

	acquired := make(chan error, 1)
	closed := make(chan error, 1)

	go func() {
		_, err := locker.AcquireLock(withinContext(t), id, minute)
		acquired <- err
	}()

	Await(t, "a statement waits for the row", func() bool {
		return e.rowWaits(t) > 0
	})

	go func() { closed <- locker.Close(withinContext(t)) }()

	select {
	case err := <-closed:
		t.Errorf("Close returned %v while a statement was under way", err)
	case <-time.After(50 * time.Millisecond): // long enough for one that doesn't wait
	}

	if err := stranger.Rollback(); err != nil {
		t.Fatal(err)
	}

	if err := Receive(t, "Close returns", closed); err != nil {
		t.Error(err)
	}

	if err := Receive(t, "AcquireLock returns", acquired); err != nil {
		t.Errorf("AcquireLock that was under way: %v", err)
	}
}

// testNothingIsLeft: after all tests, without a Close, the only connections are those of
// the application's pool.
func testNothingIsLeft(t *testing.T, e *env) {
	if e.Via != nil {
		t.Skip("what stands between keeps connections of its own")
	}

	u, err := url.Parse(e.url)
	if err != nil {
		t.Fatal(err)
	}

	var there, pooled int

	Await(t, "the server has no other connections than the pool", func() bool {
		there = Query[int](t, e.direct, "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1",
			u.Query().Get("application_name"))
		pooled = e.db.Stats().OpenConnections

		if e.pool != nil {
			pooled += int(e.pool.Stat().TotalConns())
		}

		return there == pooled
	})

	if inUse := e.db.Stats().InUse; inUse != 0 {
		t.Errorf("%d connections of the pool are in use", inUse)
	}

	if e.pool != nil && e.pool.Stat().AcquiredConns() != 0 {
		t.Errorf("%d connections of the pool are in use", e.pool.Stat().AcquiredConns())
	}
}
