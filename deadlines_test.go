package pglocker_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestTwoDeadlines: where a context's deadline and WithWait's time apply both, the earlier
// counts, and the error says which it was.
func TestTwoDeadlines(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = time.Minute

		var (
			url    = newDatabase(t)
			locker = newLocker(t, driver, url)
			other  = newLocker(t, driver, url)
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
					must(t, err)

					defer func() { must(t, held.Unlock(context.Background())) }()

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
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		url := newDatabase(t)
		locker, other := newLocker(t, driver, url), newLocker(t, driver, url)

		held, err := other.TryLock(t.Context(), "a", time.Minute)
		must(t, err)

		granted := make(chan error, 1)

		go func() {
			granted <- locker.Do(t.Context(), "a", time.Minute, 30*time.Second,
				func(context.Context) error { return nil }, pglocker.WithWait(pglocker.Forever))
		}()

		contract.Await(t, "somebody waits", func() bool { return locker.Waiting("a") })
		must(t, held.Unlock(t.Context()))
		must(t, contract.Receive(t, "Do returns", granted))
	})
}

// TestWaitBesideTrouble: the server goes away during a wait. The waiter's error says what it saw
// last, how long ago that was, and what has been in the way since.
func TestWaitBesideTrouble(t *testing.T) {
	t.Parallel()

	const (
		ttl  = time.Minute
		wait = 4 * time.Second
	)

	eachLossy(t, func(t *testing.T, l *lossy) {
		_, err := l.direct.ExecContext(t.Context(), `UPDATE pglocker.lock_statuses
			SET generation = 7, expires_at = clock_timestamp() + interval '10 seconds'`)
		must(t, err)

		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()

		other, err := pglocker.New(l.db, l.cfg)
		must(t, err)
		t.Cleanup(func() { closeLocker(t, other) })

		failed := map[string]chan error{"Lock": make(chan error, 1), "TryLock": make(chan error, 1)}

		go func() {
			_, err := l.locker.Lock(ctx, "a", ttl)
			failed["Lock"] <- err
		}()

		go func() {
			_, err := other.TryLock(t.Context(), "a", ttl, pglocker.WithWait(wait))
			failed["TryLock"] <- err
		}()

		contract.Await(t, "both wait", func() bool { return l.locker.Waiting("a") && other.Waiting("a") })

		_ = l.proxy.listener.Close()
		l.proxy.cutAll()

		for verb, failed := range failed {
			var held *pglocker.HeldError

			err := contract.Receive(t, verb+" fails", failed)

			switch {
			case !errors.As(err, &held) || held.Generation != 7:
				t.Errorf("%s: %v, want a HeldError", verb, err)
			case held.Age < 2*time.Second || held.Remaining > 10*time.Second-held.Age:
				t.Errorf("%s: %v: seen %s ago, and %s remain", verb, err, held.Age, held.Remaining)
			case !strings.Contains(err.Error(), "when it was last seen "):
				t.Errorf("%s: %v, want it said how old this is", verb, err)
			}

			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: %v, want ECONNREFUSED", verb, err)
			}

			if errors.Is(err, context.DeadlineExceeded) != (verb == "Lock") || errors.Is(err, pglocker.ErrUnknownOutcome) {
				t.Errorf("%s: %v, want its own deadline, and no other", verb, err)
			}
		}
	})
}
