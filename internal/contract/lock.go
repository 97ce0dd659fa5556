package contract

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// testTryLock: the lock is what the database shows, and outlives the context of TryLock.
// Others are refused it, and told all about its holder.
func testTryLock(t *testing.T, e *env) {
	type key struct{}

	ctx, cancel := context.WithCancel(context.WithValue(withinContext(t), key{}, "mine"))
	id := newID()

	lock, err := e.locker.TryLock(ctx, id, minute)
	if err != nil {
		t.Fatal(err)
	}

	if status := e.get(t, id); lock.Token() != status.Generation || lock.Status() != *status {
		t.Errorf("the lock is %+v with token %d, the database shows %+v", lock.Status(), lock.Token(), status)
	}

	cancel()

	if err := lock.Context().Err(); err != nil {
		t.Errorf("the lock ended with the context that it was taken with: %v", err)
	}

	if lock.Context().Value(key{}) != "mine" {
		t.Error("the lock's context has lost the values of the one that it was taken with")
	}

	if found, ok := pglocker.FromContext(lock.Context()); !ok || found != lock {
		t.Errorf("FromContext finds %p, %t in the context of %p", found, ok, lock)
	}

	ctx = withinContext(t)

	for i, locker := range []*pglocker.Locker{e.locker, e.newLocker(t)} {
		_, err := locker.TryLock(ctx, id, minute)
		isHeldBy(t, fmt.Sprintf("TryLock by locker %d", i), err, lock)

		err = locker.Do(ctx, id, minute, time.Second, func(context.Context) error {
			t.Error("fn was called")

			return nil
		})
		isHeldBy(t, fmt.Sprintf("Do by locker %d", i), err, lock)
	}

	unlock(t, lock)
	e.isFree(t, id)

	if got, want := e.get(t, id).Generation, e.next(lock.Token()); got != want {
		t.Errorf("released to generation %d, want %d", got, want)
	}

	if lock.Context().Err() == nil || errors.Is(context.Cause(lock.Context()), pglocker.ErrLockLost) {
		t.Errorf("the context of an unlocked lock: %v, want it ended and no loss", context.Cause(lock.Context()))
	}

	again := tryLock(t, e.locker, id)
	if again.Token() <= lock.Token() {
		t.Errorf("token %d after %d", again.Token(), lock.Token())
	}

	unlock(t, again)

	if _, err := e.locker.TryLock(ended(t), id, minute); !errors.Is(err, context.Canceled) {
		t.Errorf("TryLock with an ended context: %v, want context.Canceled", err)
	}

	e.isFree(t, id)
}

// testLockRenewed: without an option the lock outlives its TTL, with the same token.
func testLockRenewed(t *testing.T, e *env) {
	const ttl = 2 * time.Second

	id := newID()

	lock, err := e.locker.Lock(withinContext(t), id, ttl)
	if err != nil {
		t.Fatal(err)
	}

	granted := lock.Status()
	last, shortest := granted.ExpiresAt, ttl

	Await(t, "the lease is renewed past the end of the first", func() bool {
		if now := lock.Status().ExpiresAt; now.After(last) {
			shortest = min(shortest, now.Sub(last))
			last = now
		}

		return lock.Context().Err() != nil || Now(t, e.direct).After(granted.ExpiresAt)
	})

	// Less than 1.2 s would be left for retries.
	if shortest > ttl/2 {
		t.Errorf("renewals were %s apart or more, with a TTL of %s and no interval", shortest, ttl)
	}

	if lock.Context().Err() != nil {
		t.Error(context.Cause(lock.Context()))
	}

	status := lock.Status()
	if !status.ExpiresAt.After(granted.ExpiresAt) {
		t.Errorf("granted %+v, the lock shows %+v", granted, status)
	}

	status.ExpiresAt = granted.ExpiresAt
	if status != granted || lock.Token() != granted.Generation {
		t.Errorf("granted %+v, renewed to %+v with token %d", granted, status, lock.Token())
	}

	unlock(t, lock)
	e.isFree(t, id)
}

// testUnlock: nil for the first call alone.
func testUnlock(t *testing.T, e *env) {
	const callers = 16

	var (
		lock  = tryLock(t, e.locker, newID())
		ctx   = withinContext(t)
		errs  = make([]error, callers)
		group sync.WaitGroup
		nils  int
	)

	for i := range errs {
		group.Go(func() { errs[i] = lock.Unlock(ctx) })
	}

	group.Wait()

	for _, err := range errs {
		switch {
		case err == nil:
			nils++
		case !errors.Is(err, pglocker.ErrAlreadyUnlocked) || errors.Is(err, pglocker.ErrLockLost):
			t.Errorf("Unlock beside another: %v, want ErrAlreadyUnlocked alone", err)
		}
	}

	if nils != 1 {
		t.Errorf("%d of %d calls of Unlock returned nil, want one", nils, callers)
	}

	e.isFree(t, lock.Status().LockID)

	// Do finds the lock released by fn, and returns no error for it.
	err := e.locker.Do(ctx, lock.Status().LockID, minute, time.Second, func(ctx context.Context) error {
		inner, _ := pglocker.FromContext(ctx)

		return inner.Unlock(context.WithoutCancel(ctx))
	})
	if err != nil {
		t.Errorf("Do whose fn unlocked: %v", err)
	}
}

// testUnlockLost: the context and Unlock tell of the loss, and Unlock never returns nil.
// The new holder keeps the lock.
func testUnlockLost(t *testing.T, e *env) {
	for _, known := range []bool{true, false} {
		interval := minute / 2
		if known {
			interval = 10 * time.Millisecond
		}

		id := newID()
		lock := tryLock(t, e.locker, id, pglocker.WithRelockInterval(interval))
		e.take(t, id)

		if known {
			Receive(t, "the lock is lost", lock.Context().Done())

			if cause := context.Cause(lock.Context()); !errors.Is(cause, pglocker.ErrLockLost) {
				t.Errorf("the lock's context ended for %v, want ErrLockLost", cause)
			}
		}

		unlockLost(t, lock)

		if err := lock.Unlock(withinContext(t)); !errors.Is(err, pglocker.ErrAlreadyUnlocked) {
			t.Errorf("Unlock again: %v, want ErrAlreadyUnlocked", err)
		}

		if status := e.get(t, id); !status.ExpiresAt.After(Now(t, e.direct)) {
			t.Errorf("the lock of another was released: %+v", status)
		}
	}
}

// testUnlockUnconfirmed: Unlock returns no nil without an answer. The Locker releases the
// lock in the background, long before the lease ends.
func testUnlockUnconfirmed(t *testing.T, e *env) {
	lock := tryLock(t, e.locker, newID())

	err := lock.Unlock(ended(t))
	if !errors.Is(err, pglocker.ErrNotReleased) || !errors.Is(err, context.Canceled) || errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("Unlock with an ended context: %v, want ErrNotReleased for context.Canceled", err)
	}

	if lock.Context().Err() == nil {
		t.Error("the context of a lock that was given up has not ended")
	}

	next, err := e.locker.Lock(withinContext(t), lock.Status().LockID, minute)
	if err != nil {
		t.Fatalf("Lock after an Unlock whose caller didn't wait: %v", err)
	}

	unlock(t, next)
}

// testUnlockRace: if another client takes the lock at the moment of the Unlock, exactly one
// of both is first, and Unlock says which.
func testUnlockRace(t *testing.T, e *env) {
	const rounds = 50

	take := "UPDATE " + e.table() + ` SET generation = generation + 1,
		expires_at = statement_timestamp() + interval '1 hour' WHERE lock_id = $1 AND generation = $2`

	var losses int

	for range rounds {
		var (
			id    = newID()
			lock  = tryLock(t, e.locker, id, pglocker.WithRelockInterval(time.Millisecond))
			start = make(chan struct{})
			both  sync.WaitGroup
			taken int64
			err   error
		)

		both.Go(func() {
			<-start

			res, takeErr := e.direct.ExecContext(t.Context(), take, id, lock.Token())
			if takeErr != nil {
				t.Error(takeErr)

				return
			}

			taken, _ = res.RowsAffected()
		})
		both.Go(func() {
			<-start

			err = lock.Unlock(withinContext(t))
		})
		close(start)
		both.Wait()

		losses += int(taken)

		switch {
		case taken == 0 && err != nil:
			t.Errorf("Unlock of a lock that no other client took: %v", err)
		case taken == 1 && !errors.Is(err, pglocker.ErrLockLost):
			t.Errorf("Unlock of a lock that another took: %v, want ErrLockLost", err)
		case taken == 0 && errors.Is(context.Cause(lock.Context()), pglocker.ErrLockLost):
			t.Error("the context of a lock that no other client took says that it was lost")
		}
	}

	t.Logf("the other came first in %d of %d rounds", losses, rounds)
}
