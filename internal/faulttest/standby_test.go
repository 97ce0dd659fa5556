package faulttest

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// TestPromotion: a standby grants nothing and says why; once it is promoted, its
// tokens are above all that the old primary can have issued, lost commits
// included.
func TestPromotion(t *testing.T) {
	t.Parallel()

	server := contract.StartServer(t)

	var lockers []*pglocker.Locker

	for _, driver := range contract.Drivers {
		lockers = append(lockers, contract.NewLocker(t, driver, server.URL()))
	}

	ctx := t.Context()
	locker := lockers[0]

	created, err := locker.CreateLock(ctx, "a")
	contract.Must(t, err)

	first, err := locker.AcquireLock(ctx, "a", time.Hour)
	contract.Must(t, err)

	contract.Must(t, server.Shutdown(ctx, pgtesting.FastShutdown))
	contract.Must(t, os.WriteFile(filepath.Join(server.DataDir(), "standby.signal"), nil, 0o644))
	contract.Must(t, server.Start(ctx))

	admin := contract.Open(t, "pgx", server.URL())
	if !contract.Query[bool](t, admin, "SELECT pg_is_in_recovery()") {
		t.Fatal("the server is no standby")
	}

	for i, driver := range contract.Drivers {
		// One that knew the server as the primary, and one that knows it as standby.
		for _, locker := range []*pglocker.Locker{lockers[i], newStandbyLocker(t, driver, server.URL())} {
			contract.Await(t, "the connections to the old server are given up", func() bool {
				_, err := locker.GetLockStatus(ctx, "a")

				return err == nil
			})

			if _, err := locker.AcquireLock(ctx, "new", time.Minute); !errors.Is(err, pglocker.ErrReadOnly) {
				t.Errorf("%s: AcquireLock on a standby: %v, want ErrReadOnly", driver, err)
			}

			if _, err := locker.RefreshLock(ctx, first, time.Minute); !errors.Is(err, pglocker.ErrReadOnly) {
				t.Errorf("%s: RefreshLock on a standby: %v, want ErrReadOnly", driver, err)
			}

			if err := locker.ReleaseLock(ctx, first); !errors.Is(err, pglocker.ErrReadOnly) {
				t.Errorf("%s: ReleaseLock on a standby: %v, want ErrReadOnly", driver, err)
			}

			if _, err := locker.CreateLock(ctx, "new"); !errors.Is(err, pglocker.ErrReadOnly) {
				t.Errorf("%s: CreateLock on a standby: %v, want ErrReadOnly", driver, err)
			}

			lockers = append(lockers, locker)
		}

		db := contract.Open(t, driver, server.URL())

		if err := pglocker.MigrateDB(ctx, db, &pglocker.Config{}); err != nil {
			t.Errorf("%s: MigrateDB of what is in place, on a standby: %v", driver, err)
		}

		if err := pglocker.MigrateDB(ctx, db, &pglocker.Config{Table: "other"}); !errors.Is(err, pglocker.ErrReadOnly) {
			t.Errorf("%s: MigrateDB on a standby: %v, want ErrReadOnly", driver, err)
		}
	}

	if !contract.Query[bool](t, admin, "SELECT pg_promote(true, 60)") {
		t.Fatal("the standby was not promoted")
	}

	const floor = int64(2-1)<<40 + 1 // timeline 2

	// A holder's renewals go on by the token it has.
	k := make(chan error, 1)
	held := *first

	go func() { k <- locker.StartRelocker(ctx, &held, 2*time.Hour, time.Hour) }()

	contract.Await(t, "a renewal of a lease of the old timeline", func() bool {
		status, err := locker.GetLockStatus(ctx, "a")
		contract.Must(t, err)

		return status.ExpiresAt.After(first.ExpiresAt) && status.Generation == first.Generation
	})

	refreshed, err := locker.RefreshLock(ctx, first, time.Minute)
	contract.Must(t, err)

	if refreshed.Generation != floor {
		t.Errorf("refreshed from generation %d to %d, want %d", first.Generation, refreshed.Generation, floor)
	}

	if _, err := locker.RefreshLock(ctx, created, time.Minute); !errors.Is(err, pglocker.ErrWrongGeneration) {
		t.Errorf("a token of the old timeline: %v, want ErrWrongGeneration", err)
	}

	last := refreshed.Generation

	contract.Must(t, locker.ReleaseLock(ctx, refreshed))

	for i, locker := range lockers {
		status, err := locker.AcquireLock(ctx, "a", time.Minute)
		contract.Must(t, err)

		if status.Generation <= last {
			t.Errorf("generation %d after %d", status.Generation, last)
		}

		last = status.Generation

		contract.Must(t, locker.ReleaseLock(ctx, status))

		id := string(rune('A' + i))

		if status, err = locker.AcquireLock(ctx, id, time.Minute); err != nil || status.Generation != floor {
			t.Errorf("the first grant of a new lock: %+v, %v, want generation %d", status, err, floor)
		}
	}

	// The relocker finds at its next renewal what has become of its lock.
	contract.CloseLocker(t, locker)

	if err := contract.Receive(t, "the relocker ends", k); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("StartRelocker: %v, want ErrLockLost", err)
	}
}

// newStandbyLocker returns a locker on a server that can't be migrated.
func newStandbyLocker(t *testing.T, driver, url string) *pglocker.Locker {
	t.Helper()

	locker, err := pglocker.New(contract.Open(t, driver, url), &pglocker.Config{})
	contract.Must(t, err)

	t.Cleanup(func() { contract.CloseLocker(t, locker) })

	return locker
}
