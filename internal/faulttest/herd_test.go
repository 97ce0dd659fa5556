package faulttest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// The tests of this file have many callers meet with the same trouble at the same moment.
// The pool has no limit, and no more than a handful of connections is ever open.

// herd is how many callers there are, each with a lock of its own.
const herd = 250

// TestHerdInAStall: the server freezes, and the contexts of all callers end before it goes
// on.
func TestHerdInAStall(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			server  = contract.StartServer(t)
			opened  dials
			release []*pglocker.Lock
		)

		locker, err := pglocker.NewWithMigrateDB(t.Context(), opened.open(t, driver, server.URL()), &pglocker.Config{})
		contract.Must(t, err)

		for i := range herd / 3 {
			lock, err := locker.Lock(t.Context(), fmt.Sprint("held ", i), time.Minute)
			contract.Must(t, err)

			release = append(release, lock)
		}

		contract.Must(t, server.Freeze())

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()

		var group sync.WaitGroup

		for i := range herd {
			group.Go(func() {
				var err error

				switch i % 3 {
				case 0:
					_, err = locker.AcquireLock(ctx, fmt.Sprint("free ", i), time.Minute)
				case 1:
					_, err = locker.Lock(ctx, fmt.Sprint("free ", i), time.Minute)
				default:
					err = release[i/3].Unlock(ctx)
				}

				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%v, want DeadlineExceeded", err)
				}
			})
		}

		group.Wait()

		// What was not answered is settled in the background, in vain as yet.
		tried := opened.total()

		contract.Await(t, "another connection is tried", func() bool { return opened.total() > tried })
		contract.Must(t, server.Thaw())

		contract.Await(t, "what the callers left is freed", func() bool {
			held, err := heldLocks(t.Context(), locker, "free", "held")

			return err == nil && held == 0
		})

		contract.CloseLocker(t, locker)
		opened.check(t, mostConnections)
	})
}

// mostConnections is what docs/server.md says: five of the pool, and eight beside it.
const mostConnections = 5 + 8

// heldLocks counts the herd's locks that are held.
func heldLocks(ctx context.Context, locker *pglocker.Locker, prefixes ...string) (held int, err error) {
	for _, prefix := range prefixes {
		for i := range herd {
			status, err := locker.GetLockStatus(ctx, fmt.Sprint(prefix, " ", i))

			switch {
			case errors.Is(err, pglocker.ErrLockNotFound):
			case err != nil:
				return 0, err
			case status.Owner != "":
				held++
			}
		}
	}

	return held, nil
}

// herdOf returns a locker over url, with a free lock for each of a herd.
func herdOf(t *testing.T, driver, url string, opened *dials) *pglocker.Locker {
	t.Helper()

	locker, err := pglocker.NewWithMigrateDB(t.Context(), opened.open(t, driver, url), &pglocker.Config{})
	contract.Must(t, err)

	for i := range herd {
		_, err := locker.CreateLock(t.Context(), fmt.Sprint("free ", i))
		contract.Must(t, err)
	}

	return locker
}

// stallCommits has every commit of an update wait until letGo is called.
func stallCommits(t *testing.T, db *sql.DB) (letGo func()) {
	t.Helper()

	contract.Exec(t, db, `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$`)
	contract.Exec(t, db, `CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON pglocker.lock_statuses
		DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()`)

	barrier, err := db.Conn(t.Context())
	contract.Must(t, err)
	t.Cleanup(func() { _ = barrier.Close() }) // it is this test's alone

	_, err = barrier.ExecContext(t.Context(), "SELECT pg_advisory_lock(42)")
	contract.Must(t, err)

	return func() {
		_, err := barrier.ExecContext(t.Context(), "SELECT pg_advisory_unlock(42)")
		contract.Must(t, err)
	}
}

// awaitHerd returns when all of the herd's rows are being written.
func awaitHerd(t *testing.T, db *sql.DB) {
	t.Helper()
	contract.Await(t, "all rows are being written", func() bool {
		return contract.Query[int](t, db, `SELECT count(*) FROM pglocker.lock_statuses WHERE xmax::text <> '0'`) == herd
	})
}

// TestHerdLeavesAStall: commits wait, and all callers leave before any of them is done.
// The grants that they may have been given are returned.
func TestHerdLeavesAStall(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			url    = contract.NewDatabase(t)
			direct = contract.Open(t, "pgx", url)
			opened dials
			locker = herdOf(t, driver, url, &opened)
			letGo  = stallCommits(t, direct)
			group  sync.WaitGroup
		)

		ctx, leave := context.WithCancel(t.Context())
		defer leave()

		for i := range herd {
			group.Go(func() {
				if _, err := locker.AcquireLock(ctx, fmt.Sprint("free ", i), time.Minute); !errors.Is(err, context.Canceled) {
					t.Errorf("%v, want Canceled", err)
				}
			})
		}

		awaitHerd(t, direct)
		leave()
		group.Wait()
		letGo()

		contract.Await(t, "all is given back", func() bool {
			return contract.Query[int](t, direct, `SELECT count(*) FROM pglocker.lock_statuses WHERE owner IS NOT NULL`) == 0
		})

		contract.CloseLocker(t, locker)
		opened.check(t, mostConnections)
	})
}

// TestHerdComesOneByOne: callers come one by one while no commit is answered. They share
// connections, although the statements before theirs take long.
func TestHerdComesOneByOne(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			url    = contract.NewDatabase(t)
			direct = contract.Open(t, "pgx", url)
			opened dials
			locker = herdOf(t, driver, url, &opened)
			letGo  = stallCommits(t, direct)
			group  sync.WaitGroup
		)

		// Each comes when a statement that is under way holds back the next no longer.
		come := time.NewTicker(25 * time.Millisecond)
		defer come.Stop()

		for i := range 40 {
			group.Go(func() {
				if _, err := locker.AcquireLock(t.Context(), fmt.Sprint("free ", i), time.Minute); err != nil {
					t.Error(err)
				}
			})

			<-come.C
		}

		letGo()
		group.Wait()
		contract.CloseLocker(t, locker)
		opened.check(t, mostConnections)
	})
}
