package contract

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

func startRelocker(
	ctx context.Context, locker *pglocker.Locker, status *pglocker.LockStatus, ttl, interval time.Duration,
) <-chan error {
	done := make(chan error, 1)

	go func() { done <- locker.StartRelocker(ctx, status, ttl, interval) }()

	return done
}

// testRelocker: it renews at once, keeps the generation, and releases the lock when its
// context ends.
func testRelocker(t *testing.T, e *env) {
	held := e.acquire(t, newID(), minute)

	ctx, stop := context.WithCancel(withinContext(t))
	defer stop()

	done := startRelocker(ctx, e.locker, held, 5*minute, 4*minute)

	Await(t, "the first renewal, which doesn't wait for the interval", func() bool {
		return e.get(t, held.LockID).ExpiresAt.After(held.ExpiresAt.Add(3 * minute))
	})

	if got := e.get(t, held.LockID); got.Generation != held.Generation || got.Owner != held.Owner {
		t.Errorf("renewed %+v to %+v", held, got)
	}

	stop()

	if err := Receive(t, "the relocker ends", done); err != nil {
		t.Error(err)
	}

	e.isFree(t, held.LockID)

	if got, want := e.get(t, held.LockID).Generation, e.next(held.Generation); got != want {
		t.Errorf("released to generation %d, want %d", got, want)
	}
}

// testRelockerLost: it returns when the database shows another holder, or that the lease
// was over at the beginning.
func testRelockerLost(t *testing.T, e *env) {
	ctx := withinContext(t)
	held := e.acquire(t, newID(), minute)
	done := startRelocker(ctx, e.locker, held, minute, 50*time.Millisecond)

	e.take(t, held.LockID)

	if err := Receive(t, "the relocker ends", done); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("StartRelocker of a lock that was taken: %v, want ErrLockLost", err)
	}

	if status := e.get(t, held.LockID); !status.ExpiresAt.After(Now(t, e.direct)) {
		t.Errorf("the lock of another was released: %+v", status)
	}

	created, err := e.locker.CreateLock(ctx, newID())
	if err != nil {
		t.Fatal(err)
	}

	done = startRelocker(ctx, e.locker, created, minute, minute/2)
	if err := Receive(t, "the relocker ends", done); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("StartRelocker of a lock whose lease is over: %v, want ErrLockLost", err)
	}
}

func testRelockerClosed(t *testing.T, e *env) {
	held := e.acquire(t, newID(), minute)
	locker := e.newLocker(t)
	done := startRelocker(withinContext(t), locker, held, 2*minute, minute)

	Await(t, "the relocker runs", func() bool { return e.get(t, held.LockID).ExpiresAt != held.ExpiresAt })

	if err := locker.Close(withinContext(t)); err != nil {
		t.Error(err)
	}

	if err := Receive(t, "the relocker ends", done); !errors.Is(err, pglocker.ErrClosed) {
		t.Errorf("StartRelocker when the locker is closed: %v, want ErrClosed", err)
	}

	e.isFree(t, held.LockID)
}
