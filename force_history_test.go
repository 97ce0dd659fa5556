package pglocker_test

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestForceReleaseInHistory: the history tells a forced release from others, and why it was forced.
func TestForceReleaseInHistory(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		url := contract.NewDatabase(t)
		locker := contract.NewLocker(t, driver, url)
		contract.Must(t, pglocker.MigrateHistory(t.Context(), contract.Open(t, driver, url), &pglocker.Config{}))

		for _, reason := range []string{"stuck", ""} {
			status, err := locker.AcquireLock(t.Context(), "a"+reason, time.Minute)
			contract.Must(t, err)
			contract.Must(t, locker.ForceRelease(t.Context(), status.LockID, status.Generation, reason))

			var last pglocker.Event

			for event, err := range locker.History(t.Context(), status.LockID, time.Time{}) {
				contract.Must(t, err)

				last = event
			}

			want := reason
			if want == "" {
				want = "none given"
			}

			if last.Kind != pglocker.EventForced || last.Reason != want || last.Token != status.Generation {
				t.Errorf("the last event is %+v, want one that was forced for %q", last, want)
			}
		}
	})
}

// TestForceReleaseOfAPermit: a waiter elsewhere gets the permit, and so does one here.
func TestForceReleaseOfAPermit(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		url := contract.NewDatabase(t)
		here, elsewhere := contract.NewLocker(t, driver, url), contract.NewLocker(t, driver, url)

		for _, locker := range []*pglocker.Locker{here, elsewhere} {
			holding, err := here.NewSemaphore("s", 1)
			contract.Must(t, err)

			held, err := holding.TryAcquire(t.Context(), time.Minute)
			contract.Must(t, err)

			waiting, err := locker.NewSemaphore("s", 1)
			contract.Must(t, err)

			granted := make(chan error, 1)

			go func() {
				permit, err := waiting.Acquire(t.Context(), time.Minute)
				if err == nil {
					err = permit.Unlock(t.Context())
				}

				granted <- err
			}()

			contract.Must(t, here.ForceRelease(t.Context(), "pglocker:semaphore:s:1", held.Token(), "stuck"))

			if err := contract.Receive(t, "the waiter's permit", granted); err != nil {
				t.Error(err)
			}

			if held.Context().Err() == nil {
				t.Error("the holder was not told")
			}
		}
	})
}
