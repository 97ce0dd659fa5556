package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"
	"weak"

	"go.uber.org/goleak"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestCloseWaitsForUnlock: who unlocks because Close has ended the lock's context may be
// faster than Close itself. That returns when the lock is released, no matter by whom:
// the caller is about to close the handle.
func TestCloseWaitsForUnlock(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		// Which of the two is faster is chance: not so with each lock of each locker.
		const lockers, locks = 10, 30

		var (
			ctx     = t.Context()
			url     = contract.NewDatabase(t)
			direct  = contract.Open(t, "pgx", url)
			closed  = make(chan error, lockers)
			unlocks = make(chan error, lockers*locks)
			all     []*pglocker.Locker
		)

		for i := range lockers {
			locker := contract.NewLocker(t, driver, url)

			for j := range locks {
				lock, err := locker.Lock(ctx, fmt.Sprintf("%d of %d", j, i), time.Minute)
				contract.Must(t, err)

				context.AfterFunc(lock.Context(), func() { unlocks <- lock.Unlock(ctx) })
			}

			all = append(all, locker)
		}

		stranger := contract.LockRows(t, direct, "0 of %")

		for _, locker := range all {
			go func() { closed <- locker.Close(ctx) }()
		}

		contract.Await(t, "one lock of each is left, and its release waits for the row", func() bool {
			return contract.Query[int](t, direct, "SELECT count(owner) FROM pglocker.lock_statuses") == lockers &&
				contract.RowWaits(t, direct) == lockers
		})

		select {
		case err := <-closed:
			t.Fatalf("Close returned %v before the release", err)
		case <-time.After(50 * time.Millisecond): // long enough for one that doesn't wait
		}

		contract.Must(t, stranger.Rollback())

		for range lockers {
			contract.Must(t, contract.Receive(t, "Close returns", closed))
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
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			ctx     = t.Context()
			url     = contract.NewDatabase(t)
			direct  = contract.Open(t, "pgx", url)
			locker  = contract.NewLocker(t, driver, url)
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

		stranger := contract.LockRows(t, direct, "%")

		go func() { unlocks <- lock.Unlock(ctx) }()

		contract.Await(t, "the release waits for the row", func() bool {
			return contract.RowWaits(t, direct) > 0
		})
		close(end)

		select {
		case err := <-done:
			t.Errorf("Do returned %v before the release", err)
		case <-time.After(50 * time.Millisecond): // long enough for one that doesn't wait
		}

		contract.Must(t, stranger.Rollback())
		contract.Must(t, contract.Receive(t, "Unlock returns", unlocks))
		contract.Must(t, contract.Receive(t, "Do returns", done))
	})
}

// TestClosedLockerIsForgotten: nothing keeps a closed Locker in memory, however long the leases
// were that it lost or couldn't release, and however many waiters it had.
func TestClosedLockerIsForgotten(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			ctx = t.Context()
			url = contract.NewDatabase(t)
			db  = contract.Open(t, driver, url)
		)

		w := contract.NewWatcher()
		locker, err := pglocker.NewWithMigrateDB(ctx, db, &pglocker.Config{SafetyMargin: 20 * time.Minute, Observer: w})
		contract.Must(t, err)

		lock := func(id string) *pglocker.Lock {
			held, err := locker.TryLock(ctx, id, time.Hour, pglocker.WithRelockInterval(50*time.Millisecond))
			contract.Must(t, err)

			return held
		}

		waited := make(chan error, 2)

		wait := func(id string) {
			go func(locker *pglocker.Locker) {
				_, err := locker.Lock(ctx, id, time.Hour)
				waited <- err
			}(locker)

			contract.Receive(t, "somebody waits", w.InLine())
		}

		lost, unreleased := lock("lost"), lock("unreleased")

		wait("lost")
		wait("unreleased")
		contract.Exec(t, db, "UPDATE pglocker.lock_statuses SET generation = generation + 1 WHERE lock_id = 'lost'")
		contract.Receive(t, "the lock is lost", lost.Context().Done())

		contract.Exec(t, db, "ALTER TABLE pglocker.lock_statuses RENAME TO another")

		if err := unreleased.Unlock(ctx); err == nil {
			t.Error("a lock was released of which there is no table")
		}

		contract.CloseLocker(t, locker)

		for range 2 {
			if err := contract.Receive(t, "Lock returns", waited); err == nil {
				t.Error("a closed Locker gives locks away")
			}
		}

		forgotten := weak.Make(locker)
		locker, lock, wait, lost, unreleased = nil, nil, nil, nil, nil

		contract.Await(t, "the Locker is forgotten", func() bool {
			runtime.GC()

			return forgotten.Value() == nil
		})
	})
}

// TestAtRest: a locker with nothing to do owns no goroutine, without being closed.
// It doesn't run beside other tests, whose goroutines it would see. That no
// connection is left either is part of the contract.
func TestAtRest(t *testing.T) {
	contract.EachDriver(t, func(t *testing.T, driver string) {
		db := contract.Open(t, driver, contract.NewDatabase(t))
		locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
		contract.Must(t, err)

		before := goleak.IgnoreCurrent()

		var tasks sync.WaitGroup

		for i := range 20 {
			tasks.Go(func() {
				err := locker.Do(context.Background(), fmt.Sprint(i), 10*time.Minute, 20*time.Millisecond,
					func(ctx context.Context) error {
						lock, _ := pglocker.FromContext(ctx)
						granted := lock.Status()

						contract.Await(t, "a renewal", func() bool { return lock.Status() != granted })

						return nil
					})
				if err != nil {
					t.Error(err)
				}
			})
		}

		tasks.Wait()

		if err := goleak.Find(before); err != nil {
			t.Error(err)
		}
	})
}
