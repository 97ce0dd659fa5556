package faulttest

import (
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// The tests of this file break servers under a running Do, and some measure how
// long it takes to notice.

// TestServerFrozen: a server that hangs is noticed before it could grant the lock
// to another, with a statement in flight.
func TestServerFrozen(t *testing.T) {
	t.Parallel()

	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = 3 * time.Second

		server := contract.StartServer(t)
		k := contract.StartTask(t, contract.NewLocker(t, driver, server.URL()), "a", ttl, time.Second)
		k.AwaitRenewal(t)

		frozen := time.Now()

		contract.Must(t, server.Freeze())

		lost := contract.Receive(t, "the lock is lost", k.Lost)
		if took := lost.At.Sub(frozen); took >= ttl {
			t.Errorf("the lock was lost %s after the server froze", took)
		}

		// The server is on this machine: the clocks are the same.
		if end := k.Lock.Status().ExpiresAt; !lost.At.Before(end) {
			t.Errorf("the lock was lost %s after its lease ended", lost.At.Sub(end))
		} else if early := end.Sub(lost.At); early > ttl/10+500*time.Millisecond {
			t.Errorf("the lock was given up %s before its lease ended", early)
		}

		if !errors.Is(lost.Cause, pglocker.ErrLockLost) {
			t.Errorf("lost for %v, want ErrLockLost", lost.Cause)
		}

		// A server that doesn't answer can't keep Do from returning.
		if err := contract.Receive(t, "Do returns", k.Returned); !errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("Do: %v, want ErrLockLost", err)
		}

		if took := time.Since(frozen); took > 2*ttl {
			t.Errorf("Do returned %s after the server froze", took)
		}

		contract.Must(t, server.Thaw())
		contract.CloseLocker(t, k.Locker)

		// The next holder has another token.
		next := contract.NewLocker(t, driver, server.URL())

		contract.Await(t, "another is granted the lock", func() bool {
			status, err := next.AcquireLock(t.Context(), "a", ttl)
			if err == nil && status.Generation <= k.Lock.Token() {
				t.Errorf("generation %d was granted after %d", status.Generation, k.Lock.Token())
			}

			return err == nil
		})
	})
}

// TestRelockerWhileServerFrozen: StartRelocker tells of a loss by returning, and so
// returns before the lease is over, whatever the server does.
func TestRelockerWhileServerFrozen(t *testing.T) {
	t.Parallel()

	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = 3 * time.Second

		server := contract.StartServer(t)
		w := contract.NewWatcher()
		db := contract.Open(t, driver, server.URL())
		locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{Observer: w})
		contract.Must(t, err)

		status, err := locker.AcquireLock(t.Context(), "a", ttl)
		contract.Must(t, err)

		returned := make(chan error, 1)

		go func() { returned <- locker.StartRelocker(t.Context(), status, ttl, ttl/3) }()

		contract.Await(t, "a renewal", func() bool { return len(w.Ended(pglocker.OperationRenew, "")) > 0 })

		frozen := time.Now()

		contract.Must(t, server.Freeze())

		err = contract.Receive(t, "StartRelocker returns", returned)
		if took := time.Since(frozen); took >= ttl-50*time.Millisecond {
			t.Errorf("it returned %s after the server froze, with a lease of %s", took, ttl)
		}

		if !errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("%v, want ErrLockLost", err)
		}

		// The same of a status that says less, and while nothing was renewed.
		frozen = time.Now()
		own := &pglocker.LockStatus{LockID: "a", Generation: status.Generation, ExpiresAt: status.ExpiresAt}

		go func() { returned <- locker.StartRelocker(t.Context(), own, ttl, ttl/3) }()

		err = contract.Receive(t, "StartRelocker returns", returned)
		if took := time.Since(frozen); took >= ttl-50*time.Millisecond || !errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("without an owner: %v after %s, want ErrLockLost within %s", err, took, ttl)
		}

		contract.Must(t, server.Thaw())
		contract.CloseLocker(t, locker)
	})
}

// TestServerFrozenBriefly: what ends well within the lease costs nothing.
func TestServerFrozenBriefly(t *testing.T) {
	t.Parallel()

	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		server := contract.StartServer(t)
		db := contract.Open(t, driver, server.URL())
		contract.Must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))

		w := contract.NewWatcher()
		k := contract.StartTask(t, contract.WatchedLocker(t, db, w), "a", 3*time.Second, time.Second)

		for range 2 {
			k.AwaitRenewal(t)
			contract.Await(t, "it is answered", func() bool { return !w.UnderWay(pglocker.OperationRenew) })
			contract.Must(t, server.Freeze())
			contract.Await(t, "the next is in flight", func() bool { return w.UnderWay(pglocker.OperationRenew) })
			contract.Must(t, server.Thaw())
		}

		k.AwaitRenewal(t)
		k.Finish(t)
		contract.CloseLocker(t, k.Locker)
	})
}

// TestConnectionsTerminated: the lock outlives its connections.
func TestConnectionsTerminated(t *testing.T) {
	t.Parallel()

	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		url := contract.NewDatabase(t)
		killer := contract.Open(t, "pgx", contract.NewDatabase(t))
		locker := contract.NewLocker(t, driver, url)
		k := contract.StartTask(t, locker, "a", 3*time.Second, 300*time.Millisecond)
		database := contract.Query[string](t, contract.Open(t, driver, url), "SELECT current_database()")

		// Each time also the connections that are made instead.
		for range 12 {
			killed := 0

			for range 3 {
				killed += contract.Query[int](t, killer,
					"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = $1", database)
				time.Sleep(70 * time.Millisecond)
			}

			if killed == 0 {
				t.Error("no connection was terminated")
			}

			k.AwaitRenewal(t)
		}

		status, err := contract.NewLocker(t, driver, url).GetLockStatus(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}

		if status.Generation != k.Lock.Token() {
			t.Errorf("generation %d, the token is %d", status.Generation, k.Lock.Token())
		}

		k.Finish(t)
		contract.CloseLocker(t, locker)
	})
}

// TestServerKilled: the lock outlives a crash of the server from which it recovers
// within the lease.
func TestServerKilled(t *testing.T) {
	t.Parallel()

	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = 30 * time.Second // a slow machine needs some to start a server

		server := contract.StartServer(t)
		k := contract.StartTask(t, contract.NewLocker(t, driver, server.URL()), "a", ttl, time.Second)
		k.AwaitRenewal(t)

		killed := time.Now()

		contract.Must(t, server.Kill())
		contract.Must(t, server.Start(t.Context()))

		if took := time.Since(killed); took > ttl/2 {
			t.Fatalf("the server took %s to start, which tells nothing about the lock", took)
		}

		k.AwaitRenewal(t)

		status, err := contract.NewLocker(t, driver, server.URL()).GetLockStatus(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}

		if status.Generation != k.Lock.Token() {
			t.Errorf("generation %d, the token is %d", status.Generation, k.Lock.Token())
		}

		k.Finish(t)
		contract.CloseLocker(t, k.Locker)
	})
}
