package contract

import (
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// testGenerations: 1 is created, 2 is the first grant. Every grant, refresh and release
// adds one.
func testGenerations(t *testing.T, e *env) {
	ctx := withinContext(t)
	id := newID()

	created, err := e.locker.CreateLock(ctx, id)
	if err != nil {
		t.Fatal(err)
	}

	if created.Generation != 1 {
		t.Errorf("created with generation %d, want 1", created.Generation)
	}

	want := e.next(1)

	status := e.acquire(t, id, minute)
	if status.Generation != want {
		t.Errorf("first grant has generation %d, want %d", status.Generation, want)
	}

	for range 3 {
		want = e.next(want)

		if status, err = e.locker.RefreshLock(ctx, status, minute); err != nil {
			t.Fatal(err)
		}

		if status.Generation != want {
			t.Errorf("refreshed to generation %d, want %d", status.Generation, want)
		}
	}

	if err := e.locker.ReleaseLock(ctx, status); err != nil {
		t.Fatal(err)
	}

	want = e.next(want)
	if got := e.get(t, id).Generation; got != want {
		t.Errorf("released to generation %d, want %d", got, want)
	}

	want = e.next(want)
	if got := e.acquire(t, id, minute).Generation; got != want {
		t.Errorf("second grant has generation %d, want %d", got, want)
	}

	if got, want := e.acquire(t, newID(), minute).Generation, e.next(1); got != want {
		t.Errorf("first grant of a lock that was not created has generation %d, want %d", got, want)
	}
}

func testCreateAndGet(t *testing.T, e *env) {
	ctx := withinContext(t)
	id := newID()

	if _, err := e.locker.GetLockStatus(ctx, id); !errors.Is(err, pglocker.ErrLockNotFound) {
		t.Errorf("GetLockStatus of no lock: %v, want ErrLockNotFound", err)
	}

	created, err := e.locker.CreateLock(ctx, id)
	if err != nil {
		t.Fatal(err)
	}

	if created.LockID != id || created.Owner != "" || !created.AcquiredAt.IsZero() {
		t.Errorf("created %+v, want %q and no owner", created, id)
	}

	e.isFree(t, id)

	again, err := e.locker.CreateLock(ctx, id)
	if err != nil {
		t.Fatal(err)
	}

	if *again != *created || *e.get(t, id) != *created {
		t.Errorf("created %+v, created again %+v, got %+v: want all equal", created, again, e.get(t, id))
	}

	// Creating a held lock changes nothing.
	held := e.acquire(t, id, minute)

	if again, err = e.locker.CreateLock(ctx, id); err != nil {
		t.Fatal(err)
	}

	if *again != *held || *e.get(t, id) != *held {
		t.Errorf("held %+v, created %+v, got %+v: want all equal", held, again, e.get(t, id))
	}
}

func testAcquireHeld(t *testing.T, e *env) {
	id := newID()
	held := e.acquire(t, id, minute)

	for _, locker := range []*pglocker.Locker{e.locker, e.newLocker(t)} {
		_, err := locker.AcquireLock(withinContext(t), id, minute)
		if !errors.Is(err, pglocker.ErrAlreadyLocked) {
			t.Fatalf("AcquireLock of a held lock: %v, want ErrAlreadyLocked", err)
		}

		var heldErr *pglocker.HeldError
		if !errors.As(err, &heldErr) {
			t.Fatalf("%T is no *HeldError", err)
		}

		if heldErr.LockID != id || heldErr.Owner != held.Owner || heldErr.Generation != held.Generation {
			t.Errorf("%+v, want it to name %+v", heldErr, held)
		}

		if heldErr.Remaining <= 0 || heldErr.Remaining > minute {
			t.Errorf("the lease runs for another %s, want more than 0 and at most %s", heldErr.Remaining, minute)
		}
	}

	if *e.get(t, id) != *held {
		t.Errorf("the holder's row changed from %+v to %+v", held, e.get(t, id))
	}
}

func testAcquireExpired(t *testing.T, e *env) {
	id := newID()
	first := e.acquire(t, id, 50*time.Millisecond)

	Await(t, "the lease ends", func() bool { return Now(t, e.direct).After(first.ExpiresAt) })

	second := e.acquire(t, id, minute)
	if second.Generation != e.next(first.Generation) {
		t.Errorf("granted generation %d after %d", second.Generation, first.Generation)
	}

	if e.hasOwners() && second.Owner == first.Owner {
		t.Errorf("two grants have the owner %q", first.Owner)
	}
}

// testLease: a lease runs for the TTL from the moment of the grant, by the database's
// clock, and no shorter.
func testLease(t *testing.T, e *env) {
	const ttl = 90 * time.Second

	ctx := withinContext(t)
	id := newID()

	var status *pglocker.LockStatus

	for _, step := range []struct {
		name  string
		grant func() (*pglocker.LockStatus, error)
	}{
		{"insert", func() (*pglocker.LockStatus, error) { return e.locker.AcquireLock(ctx, id, ttl) }},
		{"refresh", func() (*pglocker.LockStatus, error) { return e.locker.RefreshLock(ctx, status, ttl) }},
		{"acquire", func() (*pglocker.LockStatus, error) {
			if err := e.locker.ReleaseLock(ctx, status); err != nil {
				return nil, err
			}

			return e.locker.AcquireLock(ctx, id, ttl)
		}},
	} {
		var err error

		before := Now(t, e.direct)

		if status, err = step.grant(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}

		after := Now(t, e.direct)
		if status.ExpiresAt.Before(before.Add(ttl)) || status.ExpiresAt.After(after.Add(ttl)) {
			t.Errorf("%s: granted between %s and %s for %s, it expires at %s", step.name, before, after, ttl, status.ExpiresAt)
		}

		if status.ExpiresAt.Location() != time.UTC {
			t.Errorf("%s: it expires in %s, want UTC", step.name, status.ExpiresAt.Location())
		}
	}

	if *e.get(t, id) != *status {
		t.Errorf("granted %+v, got %+v", status, e.get(t, id))
	}
}

func testRefresh(t *testing.T, e *env) {
	ctx := withinContext(t)
	id := newID()

	if _, err := e.locker.RefreshLock(ctx, &pglocker.LockStatus{LockID: id, Generation: 1}, minute); !errors.Is(err, pglocker.ErrLockNotFound) {
		t.Errorf("RefreshLock of no lock: %v, want ErrLockNotFound", err)
	}

	created, err := e.locker.CreateLock(ctx, id)
	if err != nil {
		t.Fatal(err)
	}

	// A lock that was only created has expired. It can be refreshed by its generation.
	first, err := e.locker.RefreshLock(ctx, created, 50*time.Millisecond)
	if err != nil {
		t.Fatalf("RefreshLock of a created lock: %v", err)
	}

	Await(t, "the lease ends", func() bool { return Now(t, e.direct).After(first.ExpiresAt) })

	second, err := e.locker.RefreshLock(ctx, first, minute)
	if err != nil {
		t.Fatalf("RefreshLock of an expired lock that no other client took: %v", err)
	}

	third, err := e.locker.RefreshLock(ctx, second, 2*minute)
	if err != nil {
		t.Fatalf("RefreshLock of a held lock: %v", err)
	}

	if e.hasOwners() != third.AcquiredAt.After(second.AcquiredAt) {
		t.Errorf("granted at %s, and by a refresh at %s", second.AcquiredAt, third.AcquiredAt)
	}

	for _, old := range []*pglocker.LockStatus{created, first, second} {
		if _, err := e.locker.RefreshLock(ctx, old, minute); !errors.Is(err, pglocker.ErrWrongGeneration) {
			t.Errorf("RefreshLock with generation %d of %d: %v, want ErrWrongGeneration", old.Generation, third.Generation, err)
		}
	}

	if *e.get(t, id) != *third {
		t.Errorf("refreshed to %+v, got %+v", third, e.get(t, id))
	}
}

func testRelease(t *testing.T, e *env) {
	ctx := withinContext(t)
	id := newID()

	if err := e.locker.ReleaseLock(ctx, &pglocker.LockStatus{LockID: id, Generation: 1}); !errors.Is(err, pglocker.ErrLockNotFound) {
		t.Errorf("ReleaseLock of no lock: %v, want ErrLockNotFound", err)
	}

	first := e.acquire(t, id, minute)

	if err := e.locker.ReleaseLock(ctx, first); err != nil {
		t.Fatal(err)
	}

	e.isFree(t, id)

	if released := e.get(t, id); released.Owner != "" || !released.AcquiredAt.IsZero() {
		t.Errorf("released %+v, want no owner", released)
	}

	if err := e.locker.ReleaseLock(ctx, first); !errors.Is(err, pglocker.ErrWrongGeneration) {
		t.Errorf("ReleaseLock once more: %v, want ErrWrongGeneration", err)
	}

	// Only the present holder can release.
	second := e.acquire(t, id, minute)

	if err := e.locker.ReleaseLock(ctx, first); !errors.Is(err, pglocker.ErrWrongGeneration) {
		t.Errorf("ReleaseLock by a former holder: %v, want ErrWrongGeneration", err)
	}

	if *e.get(t, id) != *second {
		t.Errorf("a former holder's release changed %+v to %+v", second, e.get(t, id))
	}
}
