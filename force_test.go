package pglocker_test

import (
	"context"
	"errors"
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

// TestForceReleaseTellsTheHolder: it is told at once if it holds the lock through the same Locker, whatever
// holds it: a function under Do, a leader, a relocker.
func TestForceReleaseTellsTheHolder(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		locker := contract.NewLocker(t, driver, contract.NewDatabase(t))
		ctx := t.Context()
		token := make(chan int64, 1)
		returned := make(chan error, 1)

		hold := func(ctx context.Context) error {
			token <- must(locker.GetLockStatus(t.Context(), "a"))(t).Generation

			<-ctx.Done()

			return context.Cause(ctx)
		}

		election, err := locker.NewElection("e", time.Minute)
		contract.Must(t, err)

		for id, start := range map[string]func() error{
			"a": func() error { return locker.Do(ctx, "a", time.Minute, 20*time.Second, hold) },
			"b": func() error {
				status := must(locker.AcquireLock(ctx, "b", time.Minute))(t)
				token <- status.Generation

				return locker.StartRelocker(ctx, status, time.Minute, 20*time.Second)
			},
			"pglocker:election:e": func() error {
				running, stop := context.WithCancel(ctx)
				defer stop()

				var cause error

				_ = election.Run(running, func(ctx context.Context, term pglocker.Term) error {
					token <- term.Token

					<-ctx.Done()
					cause = context.Cause(ctx)

					stop()

					return nil
				})

				return cause
			},
		} {
			go func() { returned <- start() }()

			held := contract.Receive(t, id+" is held", token)
			began := time.Now()

			// The relocker has to have taken it over.
			contract.Await(t, id+" is released by force", func() bool {
				err := locker.ForceRelease(ctx, id, held, "stuck")

				return err == nil || len(returned) > 0
			})

			if err := contract.Receive(t, id+" ends", returned); !errors.Is(err, pglocker.ErrLockLost) || time.Since(began) > 15*time.Second {
				t.Errorf("%s: %v after %s, want ErrLockLost at once", id, err, time.Since(began))
			}
		}
	})
}

// unlocker is an observer that unlocks a lock when it is lost.
type unlocker struct {
	onlyObserver
	lock *pglocker.Lock
	err  error
}

func (u *unlocker) LockLost(pglocker.LockLost) { u.err = u.lock.Unlock(context.Background()) }

// TestForceReleaseAsTheHolderUnlocks: it ends the tenure, and nobody else does, though the holder in the same Locker
// unlocks as soon as its context is cancelled.
func TestForceReleaseAsTheHolderUnlocks(t *testing.T) {
	t.Parallel()

	var u unlocker

	db := contract.Open(t, "pgx", contract.NewDatabase(t))
	contract.Must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))
	contract.Must(t, pglocker.MigrateHistory(t.Context(), db, &pglocker.Config{}))

	locker, err := pglocker.New(db, &pglocker.Config{Observer: &u})
	contract.Must(t, err)
	t.Cleanup(func() { contract.CloseLocker(t, locker) })

	u.lock, err = locker.TryLock(t.Context(), "a", time.Minute)
	contract.Must(t, err)
	contract.Must(t, locker.ForceRelease(t.Context(), "a", u.lock.Token(), "stuck"))

	if !errors.Is(u.err, pglocker.ErrLockLost) {
		t.Errorf("Unlock: %v, want ErrLockLost", u.err)
	}

	var last pglocker.Event

	for event, err := range locker.History(t.Context(), "a", time.Time{}) {
		contract.Must(t, err)

		last = event
	}

	if last.Kind != pglocker.EventForced || last.Reason != "stuck" {
		t.Errorf("the last event is %+v, want the forced release", last)
	}
}

// must returns the value of a call without an error.
func must[T any](value T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		contract.Must(t, err)

		return value
	}
}
