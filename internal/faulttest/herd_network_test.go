package faulttest

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestHerdOnACutConnection: the answer to a statement for many is lost. Each of its requests
// was granted, and is found to be.
func TestHerdOnACutConnection(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			url          = contract.NewDatabase(t)
			direct       = contract.Open(t, "pgx", url)
			proxy, cable = newProxy(t, url)
			opened       dials
			locker       = herdOf(t, driver, cable, &opened)
			letGo        = stallCommits(t, direct)
			group        sync.WaitGroup
		)

		for i := range herd {
			group.Go(func() {
				if _, err := locker.AcquireLock(t.Context(), fmt.Sprint("free ", i), time.Minute); err != nil {
					t.Error(err)
				}
			})
		}

		awaitHerd(t, direct)

		waiting := int32(contract.RowWaits(t, direct))

		proxy.onAnswer(func() fate {
			if atomic.AddInt32(&waiting, -1) < 0 {
				return pass
			}

			return cut
		})
		letGo()

		group.Wait()
		contract.CloseLocker(t, locker)

		if n := contract.Query[int](t, direct, `SELECT count(*) FROM pglocker.lock_statuses WHERE generation > 2`); n > 0 {
			t.Errorf("%d locks were granted twice", n)
		}

		opened.check(t, mostConnections)
	})
}

// TestHerdLosesItsListener: what a Locker waits for, it looks at again, all at once, when
// the connection that listens is lost.
func TestHerdLosesItsListener(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			url    = contract.NewDatabase(t)
			direct = contract.Open(t, "pgx", url)
			holder = contract.NewLocker(t, "pgx", url)
			locks  [herd]*pglocker.Lock
			opened dials
			group  sync.WaitGroup
		)

		for i := range locks {
			lock, err := holder.Lock(t.Context(), fmt.Sprint("held ", i), time.Minute)
			contract.Must(t, err)

			locks[i] = lock
		}

		locker, err := pglocker.New(opened.open(t, driver, url), &pglocker.Config{})
		contract.Must(t, err)

		for i := range locks {
			group.Go(func() {
				if _, err := locker.Lock(t.Context(), fmt.Sprint("held ", i), time.Minute); err != nil {
					t.Error(err)
				}
			})
		}

		contract.Await(t, "all wait", func() bool {
			return contract.Query[int](t, direct, `SELECT count(*) FROM pglocker.lock_statuses
				WHERE contended_until IS NOT NULL`) == herd
		})

		if driver == "pgx" {
			listeners := `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'LISTEN%'`
			contract.Await(t, "it listens", func() bool { return contract.Query[int](t, direct, listeners) > 0 })

			for range 3 {
				contract.Await(t, "its listener is ended", func() bool {
					return contract.Query[int](t, direct, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
						WHERE datname = current_database() AND query ILIKE 'LISTEN%'`) > 0
				})
			}
		}

		for _, lock := range locks {
			contract.Must(t, lock.Unlock(t.Context()))
		}

		group.Wait()
		contract.CloseLocker(t, locker)
		opened.check(t, mostConnections)
	})
}
