package faulttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// TestAcknowledgedGrantsSurvive: what was acknowledged before the server was
// killed is there when it has recovered, although by default it would not wait
// for its log to be written.
func TestAcknowledgedGrantsSurvive(t *testing.T) {
	t.Parallel()

	const (
		writers = 4 // for each driver
		atLeast = 500
	)

	server := contract.StartServer(t,
		pgtesting.WithSetting("fsync", "on"),
		pgtesting.WithSetting("synchronous_commit", "off"),
		pgtesting.WithSetting("wal_writer_delay", "10s"))

	var (
		mu    sync.Mutex
		acked = make(map[string]int64)
		many  = make(chan struct{})
		once  sync.Once
		done  sync.WaitGroup
	)

	ack := func(status *pglocker.LockStatus) {
		mu.Lock()
		defer mu.Unlock()

		acked[status.LockID] = status.Generation
		if len(acked) == atLeast {
			once.Do(func() { close(many) })
		}
	}

	for _, driver := range contract.Drivers {
		locker := contract.NewLocker(t, driver, server.URL())

		for w := range writers {
			done.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()

				for i := 0; ; i++ {
					status, err := locker.AcquireLock(ctx, fmt.Sprintf("%s-%d-%d", driver, w, i), time.Hour)
					if err != nil {
						return // the server is down
					}

					ack(status)

					if i%2 == 1 {
						if status, err = locker.RefreshLock(ctx, status, time.Hour); err != nil {
							return
						}

						ack(status)
					}
				}
			})
		}
	}

	contract.Receive(t, "many grants", many)
	contract.Must(t, server.Kill())
	done.Wait()
	contract.Must(t, server.Start(t.Context()))

	locker := contract.NewLocker(t, "pgx", server.URL())

	for id, generation := range acked {
		status, err := locker.GetLockStatus(t.Context(), id)
		if err != nil || status.Generation < generation {
			t.Errorf("generation %d was acknowledged; after the crash: %+v, %v", generation, status, err)
		}
	}

	t.Logf("%d locks acknowledged", len(acked))
}

// TestReleaseMayBeLost: a release isn't flushed. A crash that loses it revives the lease
// that it ended, which then runs to its end, and no more than that: nobody is granted
// the lock before, the next token is larger, and a grant that came after a release has
// brought it with it.
func TestReleaseMayBeLost(t *testing.T) {
	t.Parallel()

	const ttl = 4 * time.Second

	server := contract.StartServer(t, pgtesting.WithSetting("fsync", "on"))
	ctx := t.Context()
	locker := contract.NewLocker(t, "pgx", server.URL())

	acquire := func(id string) *pglocker.LockStatus {
		t.Helper()

		status, err := locker.AcquireLock(ctx, id, ttl)
		contract.Must(t, err)

		return status
	}

	released, taken, revived := acquire("released"), acquire("released and taken"), acquire("revived")

	// What isn't waited for is flushed by this process alone, as long as there is little.
	stopWalWriter(t, server)

	contract.Must(t, locker.ReleaseLock(ctx, taken))
	after := acquire("released and taken")
	contract.Must(t, locker.ReleaseLock(ctx, revived))
	contract.Must(t, locker.ReleaseLock(ctx, released))

	freedToo, err := locker.GetLockStatus(ctx, "revived")
	contract.Must(t, err)

	freed, err := locker.GetLockStatus(ctx, "released")
	contract.Must(t, err)

	if freed.Owner != "" || freed.Generation == released.Generation {
		t.Fatalf("released, and shown as %+v", freed)
	}

	contract.Must(t, server.Kill())
	contract.Must(t, server.Start(ctx))

	locker = contract.NewLocker(t, "pgx", server.URL())

	if got, err := locker.GetLockStatus(ctx, "released"); err != nil || *got != *released {
		t.Fatalf("the release was to be lost, for this test: %+v, %v; want %+v", got, err, released)
	}

	if got, err := locker.GetLockStatus(ctx, "released and taken"); err != nil || *got != *after {
		t.Errorf("after the crash: %+v, %v; want the acknowledged grant %+v", got, err, after)
	}

	// Who refreshes the lease that is back is a holder like any other.
	again, err := locker.RefreshLock(ctx, revived, ttl)
	contract.Must(t, err)

	if again.Generation != freedToo.Generation {
		t.Fatalf("generation %d, which was to be %d, for this test", again.Generation, freedToo.Generation)
	}

	if _, err := locker.RefreshLock(ctx, freedToo, ttl); !errors.Is(err, pglocker.ErrWrongGeneration) {
		t.Errorf("refresh of a state that was lost: %v, want ErrWrongGeneration", err)
	}

	if err := locker.StartRelocker(ctx, freedToo, ttl, ttl/3); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("relocking a state that was lost: %v, want ErrLockLost", err)
	}

	contract.Must(t, locker.ReleaseLock(ctx, again))

	waits := time.Now()
	next, err := locker.Lock(ctx, "released", ttl)
	contract.Must(t, err)

	status := next.Status()
	if status.AcquiredAt.Before(released.ExpiresAt) || next.Token() <= released.Generation {
		t.Errorf("granted %+v, although the lease of %+v had been revived", status, released)
	}

	from := released.ExpiresAt // by the same clock as this process's
	if waits.After(from) {
		from = waits
	}

	if late := status.AcquiredAt.Sub(from); late > 2*time.Second {
		t.Errorf("granted %s after the end of the revived lease", late)
	}

	// The state that was seen before the crash never came to be. Its generation is now
	// the holder's, who must not lose the lock to who has seen it.
	if next.Token() != freed.Generation {
		t.Fatalf("token %d, which was to be %d, for this test", next.Token(), freed.Generation)
	}

	if _, err := locker.RefreshLock(ctx, freed, ttl); !errors.Is(err, pglocker.ErrWrongGeneration) {
		t.Errorf("refresh of a state that was lost: %v, want ErrWrongGeneration", err)
	}

	if err := locker.ReleaseLock(ctx, freed); !errors.Is(err, pglocker.ErrWrongGeneration) {
		t.Errorf("release of a state that was lost: %v, want ErrWrongGeneration", err)
	}

	// Who kept no more of its own status than the columns that every table has can go on.
	own := &pglocker.LockStatus{LockID: "released", Generation: next.Token(), ExpiresAt: next.Status().ExpiresAt}

	refreshed, err := locker.RefreshLock(ctx, own, ttl)
	contract.Must(t, err)
	contract.Must(t, locker.ReleaseLock(ctx, &pglocker.LockStatus{LockID: "released", Generation: refreshed.Generation}))

	if err := next.Unlock(ctx); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("unlock after the status was refreshed: %v", err)
	}
}

// TestMinHoldSurvivesACrash: a minimum hold is flushed, since the lease that a crash would
// revive ends before it. Nothing comes after it that would bring it along.
func TestMinHoldSurvivesACrash(t *testing.T) {
	t.Parallel()

	server := contract.StartServer(t, pgtesting.WithSetting("fsync", "on"))
	ctx := t.Context()

	slot, err := contract.NewLocker(t, "pgx", server.URL()).TryLock(ctx, "slot", 4*time.Second, pglocker.WithMinHold(time.Hour))
	contract.Must(t, err)

	stopWalWriter(t, server)
	contract.Must(t, slot.Unlock(ctx))
	contract.Must(t, server.Kill())
	contract.Must(t, server.Start(ctx))

	got, err := contract.NewLocker(t, "pgx", server.URL()).GetLockStatus(ctx, "slot")
	if err != nil || time.Until(got.ExpiresAt) < 50*time.Minute {
		t.Errorf("after the crash the slot is %+v, %v; want it held for an hour", got, err)
	}
}
