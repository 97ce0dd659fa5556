package pglocker_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestTwoDeadlines: where a context's deadline and WithWait's time apply both, the earlier
// counts, and the error says which it was.
func TestTwoDeadlines(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = time.Minute

		var (
			url    = contract.NewDatabase(t)
			locker = contract.NewLocker(t, driver, url)
			other  = contract.NewLocker(t, driver, url)
		)

		for name, test := range map[string]struct {
			deadline, wait time.Duration
			contexts       bool // the error is the context's
		}{
			"the context's first":          {time.Second, time.Hour, true},
			"the option's first":           {time.Hour, time.Second, false},
			"the context's before forever": {time.Second, pglocker.Forever, true},
			"the context's before most":    {time.Second, math.MaxInt64 - 1, true},
		} {
			for verb, call := range map[string]func(ctx context.Context, id string) error{
				"Do": func(ctx context.Context, id string) error {
					return locker.Do(ctx, id, ttl, ttl/2, func(context.Context) error { return nil }, pglocker.WithWait(test.wait))
				},
				"Lock": func(ctx context.Context, id string) error {
					_, err := locker.Lock(ctx, id, ttl, pglocker.WithWait(test.wait))

					return err
				},
				"TryLock": func(ctx context.Context, id string) error {
					_, err := locker.TryLock(ctx, id, ttl, pglocker.WithWait(test.wait))

					return err
				},
			} {
				t.Run(name+" "+verb, func(t *testing.T) {
					t.Parallel()

					// One id each: a waiter that is never first in its line doesn't know the holder.
					id := name + verb
					held, err := other.TryLock(t.Context(), id, ttl)
					contract.Must(t, err)

					defer func() { contract.Must(t, held.Unlock(context.Background())) }()

					ctx, cancel := context.WithTimeout(t.Context(), test.deadline)
					defer cancel()

					began := time.Now()
					err = call(ctx, id)
					took := time.Since(began)

					if !errors.Is(err, pglocker.ErrAlreadyLocked) || errors.Is(err, context.DeadlineExceeded) != test.contexts {
						t.Errorf("%v, want ErrAlreadyLocked, and the context's error: %t", err, test.contexts)
					}

					if took < time.Second || took > 20*time.Second {
						t.Errorf("it took %s, want a second", took)
					}
				})
			}
		}
	})
}

// TestWaitForever: Forever is no time that ends.
func TestWaitForever(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		url := contract.NewDatabase(t)
		other := contract.NewLocker(t, driver, url)
		w := contract.NewWatcher()
		locker := contract.WatchedLocker(t, contract.Open(t, driver, url), w)

		held, err := other.TryLock(t.Context(), "a", time.Minute)
		contract.Must(t, err)

		granted := make(chan error, 1)

		go func() {
			granted <- locker.Do(t.Context(), "a", time.Minute, 30*time.Second,
				func(context.Context) error { return nil }, pglocker.WithWait(pglocker.Forever))
		}()

		contract.Receive(t, "somebody waits", w.InLine())
		contract.Must(t, held.Unlock(t.Context()))
		contract.Must(t, contract.Receive(t, "Do returns", granted))
	})
}

// TestWithWaitIsBounded: the time of WithWait is over when it is over, also for a
// request that hangs on a row that a stranger has locked.
func TestWithWaitIsBounded(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			ctx    = t.Context()
			url    = contract.NewDatabase(t)
			locker = contract.NewLocker(t, driver, url)
			direct = contract.Open(t, driver, url)
		)

		_, err := locker.CreateLock(ctx, "a")
		contract.Must(t, err)

		stranger := contract.LockRows(t, direct, "%")

		// Within the time of the first request, and beyond it.
		for _, limit := range []time.Duration{300 * time.Millisecond, 6 * time.Second} {
			began := time.Now()

			_, err = locker.TryLock(ctx, "a", time.Minute, pglocker.WithWait(limit))
			if !errors.Is(err, pglocker.ErrUnknownOutcome) || errors.Is(err, pglocker.ErrAlreadyLocked) {
				t.Errorf("TryLock: %v, want an unknown outcome: nobody holds the lock", err)
			}

			if took := time.Since(began); took < limit || took > limit+3*time.Second {
				t.Errorf("TryLock waited %s for %s", took, limit)
			}
		}

		contract.Must(t, stranger.Rollback())
	})
}
