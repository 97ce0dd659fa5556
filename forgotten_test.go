package pglocker_test

import (
	"runtime"
	"testing"
	"time"
	"weak"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestClosedLockerIsForgotten: nothing keeps a closed Locker in memory, however long the leases
// were that it lost or couldn't release, and however many waiters it had.
func TestClosedLockerIsForgotten(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			ctx = t.Context()
			url = newDatabase(t)
			db  = contract.Open(t, driver, url)
		)

		locker, err := pglocker.NewWithMigrateDB(ctx, db, &pglocker.Config{SafetyMargin: 20 * time.Minute})
		must(t, err)

		lock := func(id string) *pglocker.Lock {
			held, err := locker.TryLock(ctx, id, time.Hour, pglocker.WithRelockInterval(50*time.Millisecond))
			must(t, err)

			return held
		}

		waited := make(chan error, 2)

		wait := func(id string) {
			go func(locker *pglocker.Locker) {
				_, err := locker.Lock(ctx, id, time.Hour)
				waited <- err
			}(locker)

			contract.Await(t, "somebody waits", func() bool { return locker.Waiting(id) })
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

		closeLocker(t, locker)

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
