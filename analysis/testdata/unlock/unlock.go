// Package unlock has functions that unlock what they lock, and functions that don't always.
package unlock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

func work(ctx context.Context) error { return ctx.Err() }

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func missedAfterAnError(ctx context.Context, locker *pglocker.Locker) error {
	lock, err := locker.Lock(ctx, "a", time.Minute) // want `lock isn't unlocked on every path`
	if err != nil {
		return err
	}

	if err := work(lock.Context()); err != nil {
		return err
	}

	return lock.Unlock(ctx)
}

func missedAfterTheSameError(ctx context.Context, locker *pglocker.Locker) error {
	lock, err := locker.TryLock(ctx, "a", time.Minute) // want `lock isn't unlocked on every path`

	switch {
	case errors.Is(err, pglocker.ErrAlreadyLocked):
		return nil
	case err != nil:
		return err
	}

	if err = work(lock.Context()); err != nil {
		return err
	}

	return lock.Unlock(ctx)
}

func missedThoughTheErrorWasLookedAt(ctx context.Context, locker *pglocker.Locker) error {
	lock, err := locker.TryLock(ctx, "a", time.Minute) // want `lock isn't unlocked on every path`
	if err != nil {
		return err
	}

	n, err := fmt.Println(lock.Token())
	if err != nil {
		return err
	}

	fmt.Println(n)

	return lock.Unlock(ctx)
}

func missedInALoop(ctx context.Context, locker *pglocker.Locker, ids []string) error {
	for _, id := range ids {
		lock, err := locker.Lock(ctx, id, time.Minute) // want `lock isn't unlocked on every path`
		if err != nil {
			return err
		}

		fmt.Println(lock.Token())
	}

	return nil
}

func missedAlways(ctx context.Context, locker *pglocker.Locker) {
	all, err := locker.LockAll(ctx, []string{"a", "b"}, time.Minute) // want `all isn't unlocked on every path`
	must(err)
	fmt.Println(all.Tokens())
}

func missedWithRecipes(ctx context.Context, sem *pglocker.Semaphore, rw *pglocker.RWLock, skip bool) error {
	permit, err := sem.Acquire(ctx, time.Minute) // want `permit isn't unlocked on every path`
	if err != nil {
		return err
	}

	if skip {
		return nil
	}

	must(permit.Unlock(ctx))

	writing, err := rw.Lock(ctx, time.Minute)
	if err != nil {
		return err
	}

	reading, err := writing.Downgrade(ctx) // want `reading isn't unlocked on every path`
	if err != nil {
		return err
	}

	fmt.Println(reading.Token())

	return nil
}

func missedAfterAGuard(ctx context.Context, locker *pglocker.Locker, tx *sql.Tx) error {
	lock, err := locker.Lock(ctx, "a", time.Minute) // want `lock isn't unlocked on every path`
	if err != nil {
		return err
	}

	if err := lock.Guard(ctx, tx); err != nil {
		return err
	}

	defer lock.Unlock(ctx)

	return tx.Commit()
}

func deferred(ctx context.Context, locker *pglocker.Locker) error {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}
	defer lock.Unlock(ctx)

	return work(lock.Context())
}

func deferredInAClosure(ctx context.Context, locker *pglocker.Locker) (err error) {
	var lock *pglocker.Lock
	defer func() {
		if lock != nil {
			err = errors.Join(err, lock.Unlock(ctx))
		}
	}()

	lock, err = locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	return work(lock.Context())
}

func onlyIfGranted(ctx context.Context, locker *pglocker.Locker) error {
	if lock, err := locker.TryLock(ctx, "a", time.Minute); err == nil {
		return lock.Unlock(ctx)
	}

	lock, err := locker.TryLock(ctx, "a", time.Minute)
	if !errors.Is(err, pglocker.ErrAlreadyLocked) && err != nil {
		return err
	}

	if lock != nil {
		return lock.Unlock(ctx)
	}

	lock, err = locker.TryLock(ctx, "a", time.Minute)
	if granted := err == nil; !granted {
		return err
	}

	return lock.Unlock(ctx)
}

func untilItIsOver(ctx context.Context, locker *pglocker.Locker, tick <-chan time.Time) error {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	held := lock.Context()

	for held.Err() == nil {
		select {
		case <-held.Done():
			return context.Cause(held)
		case <-tick:
		}
	}

	return context.Cause(held)
}

func lostWhileItWorked(ctx context.Context, locker *pglocker.Locker) error {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	if err := work(lock.Context()); errors.Is(err, pglocker.ErrLockLost) {
		return err
	}

	return lock.Unlock(ctx)
}

type keeper struct{ lock *pglocker.Lock }

func (k *keeper) leavesTheFunction(ctx context.Context, locker *pglocker.Locker) (*pglocker.Lock, error) {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return nil, err
	}

	k.lock = lock

	if k.lock, err = locker.Lock(ctx, "b", time.Minute); err != nil {
		return nil, err
	}

	lock, err = locker.Lock(ctx, "c", time.Minute)

	return lock, err
}

func named(ctx context.Context, locker *pglocker.Locker) (lock *pglocker.Lock, err error) {
	lock, err = locker.Lock(ctx, "a", time.Minute)

	return
}

func leftToClose(ctx context.Context, locker *pglocker.Locker) error {
	defer locker.Close(ctx)

	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	return work(lock.Context())
}

func byForce(ctx context.Context, locker *pglocker.Locker) error { // want byForce:"releases"
	lock, err := locker.Lock(ctx, "a", time.Minute)
	if err != nil {
		return err
	}

	return locker.ForceRelease(ctx, "a", lock.Token(), "to see what happens")
}

func endsTheProcess(ctx context.Context, locker *pglocker.Locker) {
	lock, err := locker.Lock(ctx, "a", time.Minute)
	must(err)

	if work(lock.Context()) != nil {
		os.Exit(1)
	}

	panic("done")
}

func untilTheProcessEnds(ctx context.Context, locker *pglocker.Locker) {
	if _, err := locker.TryLock(ctx, "a", time.Minute); err != nil {
		log.Fatal("another process runs")
	}
}

func inATest(t *testing.T, locker *pglocker.Locker) {
	lock, err := locker.TryLock(t.Context(), "a", time.Minute)
	must(err)
	t.Log(lock.Token())
}
