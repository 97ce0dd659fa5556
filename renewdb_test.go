package pglocker_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// named is a URL whose connections the server shows under a name.
func named(url, name string) string {
	return url + map[bool]string{true: "&", false: "?"}[strings.Contains(url, "?")] + "application_name=" + name
}

// TestRenewDB: with an explicit handle for renewals, releases and listening, nothing but
// that handle has connections beside the pool, and it is left open.
func TestRenewDB(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = 3 * time.Second

		var told contract.Page

		url := contract.NewDatabase(t)
		direct := contract.Open(t, "pgx", named(url, "direct"))
		db := contract.Open(t, driver, named(url, "application"))
		beside := contract.Open(t, driver, named(url, "beside"))

		db.SetMaxOpenConns(1)
		beside.SetMaxOpenConns(2)
		contract.Must(t, pglocker.MigrateDB(t.Context(), direct, &pglocker.Config{}))

		locker, err := pglocker.New(db, &pglocker.Config{RenewDB: beside, Logger: slog.New(slog.NewTextHandler(&told, nil))})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

		locker.ForbidOwn() // as behind a driver that can't be asked

		k := contract.StartTask(t, locker, "a", ttl, 50*time.Millisecond)
		second, err := locker.TryLock(t.Context(), "b", ttl)
		contract.Must(t, err)

		ctx, leave := context.WithCancel(t.Context())
		defer leave()

		left := make(chan error, 1)

		go func() {
			_, err := locker.Lock(ctx, "a", ttl)
			left <- err
		}()

		listens := func() bool {
			return contract.Query[bool](t, direct, `SELECT EXISTS (SELECT FROM pg_stat_activity
				WHERE datname = current_database() AND application_name = 'beside' AND query LIKE 'LISTEN%')`)
		}

		if driver == "pgx" {
			contract.Await(t, "a connection of the handle listens", listens)
		}

		// The whole pool is in use.
		conn, err := db.Conn(t.Context())
		contract.Must(t, err)

		// And each kind of request waits for it.
		waiting, giveUp := context.WithCancel(t.Context())
		defer giveUp()

		var requests sync.WaitGroup

		for _, ask := range []func(ctx context.Context) error{
			func(ctx context.Context) error { _, err := locker.AcquireLock(ctx, "x", ttl); return err },
			func(ctx context.Context) error { _, err := locker.GetLockStatus(ctx, "x"); return err },
			func(ctx context.Context) error { _, err := locker.CreateLock(ctx, "y"); return err },
			func(ctx context.Context) error {
				_, err := locker.RefreshLock(ctx, &pglocker.LockStatus{LockID: "x", Generation: 1}, ttl)

				return err
			},
			func(ctx context.Context) error {
				return locker.ReleaseLock(ctx, &pglocker.LockStatus{LockID: "x", Generation: 1})
			},
		} {
			requests.Go(func() {
				if err := ask(waiting); !errors.Is(err, context.Canceled) {
					t.Errorf("a request without a connection: %v", err)
				}
			})
		}

		for range 20 {
			k.AwaitRenewal(t)
		}

		began := time.Now()
		contract.Must(t, second.Unlock(t.Context()))

		if took := time.Since(began); took > time.Second/2 {
			t.Errorf("the release took %s", took)
		}

		giveUp()
		requests.Wait()
		leave()
		contract.Receive(t, "the waiter leaves", left)
		k.Finish(t)
		contract.Must(t, conn.Close())

		if n, rest := contract.Backends(t, direct, "beside"), contract.Query[int](t, direct, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name NOT IN ('beside', 'direct', 'application')`); n > 2 || rest > 0 {
			t.Errorf("%d connections of the handle and %d others, want two at most, and none", n, rest)
		}

		contract.CloseLocker(t, locker)

		if stats := beside.Stats(); stats.InUse != 0 {
			t.Errorf("%d connections of the handle are still in use", stats.InUse)
		}

		contract.Must(t, beside.PingContext(t.Context())) // it was not closed
		contract.Await(t, "nobody listens", func() bool { return !listens() })

		if strings.Contains(told.String(), "share it") {
			t.Errorf("told: %s", told.String())
		}
	})
}

// TestRenewDBOfAnotherDriver: the handle may be of another driver than the pool.
func TestRenewDBOfAnotherDriver(t *testing.T) {
	t.Parallel()

	for driver, other := range map[string]string{"pgx": "postgres", "postgres": "pgx"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()

			url := contract.NewDatabase(t)
			db := contract.Open(t, driver, url)
			db.SetMaxOpenConns(1)

			locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{RenewDB: contract.Open(t, other, url)})
			contract.Must(t, err)
			t.Cleanup(func() { contract.CloseLocker(t, locker) })

			k := contract.StartTask(t, locker, "a", 3*time.Second, 50*time.Millisecond)

			conn, err := db.Conn(t.Context())
			contract.Must(t, err)

			for range 5 {
				k.AwaitRenewal(t)
			}

			k.Finish(t)
			contract.Must(t, conn.Close())
		})
	}
}

// TestSharedPoolIsSaid: where there is no connection beside the pool, the log says once
// what that costs.
func TestSharedPoolIsSaid(t *testing.T) {
	t.Parallel()

	var told contract.Page

	db := contract.Open(t, "pgx", contract.NewDatabase(t))

	locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{Logger: slog.New(slog.NewTextHandler(&told, nil))})
	contract.Must(t, err)
	t.Cleanup(func() { contract.CloseLocker(t, locker) })

	locker.ForbidOwn()

	k := contract.StartTask(t, locker, "a", 30*time.Second, 10*time.Millisecond)
	k.AwaitRenewal(t)

	// A release that finds the pool used up looks for a connection once more.
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()

	lock, err := locker.TryLock(t.Context(), "b", 30*time.Second)
	contract.Must(t, err)
	db.SetMaxOpenConns(1)

	conn, err := db.Conn(t.Context())
	contract.Must(t, err)

	if err := lock.Unlock(ctx); !errors.Is(err, pglocker.ErrNotReleased) {
		t.Errorf("Unlock without a connection: %v", err)
	} else if !strings.Contains(err.Error(), "of 1 in use)") {
		t.Errorf("Unlock without a connection: %v, which doesn't say so", err)
	}

	contract.Must(t, conn.Close())
	k.Finish(t)

	if n := strings.Count(told.String(), "renewals share the pool"); n != 1 {
		t.Errorf("it was said %d times: %s", n, told.String())
	}
}

// TestOwnNames: the server shows what the connections of a Locker's own are for.
func TestOwnNames(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		url := contract.NewDatabase(t)
		direct := contract.Open(t, "pgx", named(url, "direct"))
		db := contract.Open(t, driver, url)
		db.SetMaxOpenConns(2)

		locker := contract.NewLockerOver(t, db)
		k := contract.StartTask(t, locker, "a", 30*time.Second, 10*time.Millisecond)
		k.AwaitRenewal(t)

		if n := contract.Backends(t, direct, "pglocker renew"); n != 1 {
			t.Errorf("%d connections are shown to renew, want one", n)
		}

		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)

		go func() {
			_, err := locker.Lock(ctx, "a", time.Second)
			left <- err
		}()

		if driver == "pgx" {
			contract.Await(t, "one is shown to listen", func() bool { return contract.Backends(t, direct, "pglocker listen") == 1 })
		}

		leave()
		contract.Receive(t, "the waiter leaves", left)

		for range 2 {
			conn, err := db.Conn(t.Context())
			contract.Must(t, err)

			defer func() { contract.Must(t, conn.Close()) }()
		}

		tx := contract.LockRows(t, direct, "a")
		close(k.End)
		contract.Await(t, "one is shown to release", func() bool { return contract.Backends(t, direct, "pglocker release") == 1 })
		contract.Must(t, tx.Rollback())
		contract.Must(t, contract.Receive(t, "Do returns", k.Returned))
	})
}
