package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestCloseWaitsForUnlock: who unlocks because Close has ended the lock's context may be
// faster than Close itself. That returns when the lock is released, no matter by whom:
// the caller is about to close the handle.
func TestCloseWaitsForUnlock(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		// Which of the two is faster is chance: not so with each lock of each locker.
		const lockers, locks = 10, 30

		var (
			ctx     = t.Context()
			url     = newDatabase(t)
			direct  = contract.Open(t, "pgx", url)
			closed  = make(chan error, lockers)
			unlocks = make(chan error, lockers*locks)
			all     []*pglocker.Locker
		)

		for i := range lockers {
			locker := newLocker(t, driver, url)

			for j := range locks {
				lock, err := locker.Lock(ctx, fmt.Sprintf("%d of %d", j, i), time.Minute)
				must(t, err)

				context.AfterFunc(lock.Context(), func() { unlocks <- lock.Unlock(ctx) })
			}

			all = append(all, locker)
		}

		stranger := lockRows(t, direct, "0 of %")

		for _, locker := range all {
			go func() { closed <- locker.Close(ctx) }()
		}

		contract.Await(t, "one lock of each is left, and its release waits for the row", func() bool {
			return contract.Query[int](t, direct, "SELECT count(owner) FROM pglocker.lock_statuses") == lockers &&
				rowWaits(t, direct) == lockers
		})

		select {
		case err := <-closed:
			t.Fatalf("Close returned %v before the release", err)
		case <-time.After(50 * time.Millisecond): // long enough for one that doesn't wait
		}

		must(t, stranger.Rollback())

		for range lockers {
			must(t, contract.Receive(t, "Close returns", closed))
		}

		if held := contract.Query[int](t, direct, "SELECT count(owner) FROM pglocker.lock_statuses"); held > 0 {
			t.Errorf("%d locks are held after Close", held)
		}

		for range lockers * locks {
			if err := contract.Receive(t, "Unlock returns", unlocks); err != nil && !errors.Is(err, pglocker.ErrAlreadyUnlocked) {
				t.Error(err)
			}
		}
	})
}

// TestCloseWaitsForUnlockOutsideDo: what Do's function leaves to another goroutine, Do waits
// for, and so does Close.
func TestCloseWaitsForUnlockOutsideDo(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			ctx     = t.Context()
			url     = newDatabase(t)
			direct  = contract.Open(t, "pgx", url)
			locker  = newLocker(t, driver, url)
			holds   = make(chan *pglocker.Lock, 1)
			end     = make(chan struct{})
			unlocks = make(chan error, 1)
			done    = make(chan error, 1)
		)

		go func() {
			done <- locker.Do(ctx, "a", time.Minute, time.Second, func(ctx context.Context) error {
				lock, _ := pglocker.FromContext(ctx)
				holds <- lock
				<-end

				return nil
			})
		}()

		lock := contract.Receive(t, "the function runs", holds)

		stranger := lockRows(t, direct, "%")

		go func() { unlocks <- lock.Unlock(ctx) }()

		contract.Await(t, "the release waits for the row", func() bool {
			return rowWaits(t, direct) > 0
		})
		close(end)

		select {
		case err := <-done:
			t.Errorf("Do returned %v before the release", err)
		case <-time.After(50 * time.Millisecond): // long enough for one that doesn't wait
		}

		must(t, stranger.Rollback())
		must(t, contract.Receive(t, "Unlock returns", unlocks))
		must(t, contract.Receive(t, "Do returns", done))
	})
}
