package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestMinHoldAfterFailure: a minimum hold is kept after a failure too. The error of another caller
// says what keeps the lock, though it has no holder.
func TestMinHoldAfterFailure(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			ctx    = t.Context()
			locker = newLocker(t, driver, newDatabase(t))
			failed = errors.New("the job failed")
			token  int64
		)

		err := locker.Do(ctx, "a", time.Minute, 30*time.Second, func(ctx context.Context) error {
			token, _ = pglocker.Token(ctx)

			_, err := locker.TryLock(context.WithoutCancel(t.Context()), "a", time.Minute)
			if want := fmt.Sprintf(`"a" is held by %s`, locker.Name()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("while the job runs: %v, want %q", err, want)
			}

			return failed
		}, pglocker.WithMinHold(time.Hour))
		if !errors.Is(err, failed) {
			t.Errorf("Do: %v, want what the job returned", err)
		}

		for range 2 {
			_, err = locker.TryLock(ctx, "a", time.Minute, pglocker.WithWait(100*time.Millisecond))

			var held *pglocker.HeldError
			if !errors.As(err, &held) || held.Owner != "" || held.Generation != token+1 || held.Remaining < 50*time.Minute {
				t.Errorf("after the job: %v, want a lock that is held for an hour, and by nobody", err)
			}

			want := fmt.Sprintf(`"a" is held until its minimum hold ends, generation %d, for another `, token+1)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("after the job: %v, want %q", err, want)
			}
		}
	})
}

// TestReleaseIsBounded: a release that the database doesn't answer is given up half a second
// after the lease is over at the latest, whatever the caller's context.
func TestReleaseIsBounded(t *testing.T) {
	t.Parallel()

	const (
		ttl   = 1500 * time.Millisecond
		after = 500 * time.Millisecond
		// slack is for a machine that has other things to do.
		slack = time.Second
	)

	for name, hold := range map[string]func(l *lossy, silence func()) error{
		"Unlock": func(l *lossy, silence func()) error {
			lock, err := l.locker.TryLock(context.Background(), "a", ttl)
			if err != nil {
				return err
			}

			silence()

			return lock.Unlock(context.Background())
		},
		"Do": func(l *lossy, silence func()) error {
			return l.locker.Do(context.Background(), "a", ttl, ttl/3, func(context.Context) error {
				silence()

				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachLossy(t, func(t *testing.T, l *lossy) {
				var over time.Time

				done := make(chan error, 1)

				go func() {
					done <- hold(l, func() {
						over = time.Now().Add(ttl)

						l.proxy.onAnswer(func() fate { return mute })
					})
				}()

				err := contract.Receive(t, name+" returns", done)
				late := time.Since(over)

				if !errors.Is(err, pglocker.ErrNotReleased) {
					t.Errorf("%v, want ErrNotReleased", err)
				}

				if late > after+slack || late < -ttl/2 {
					t.Errorf("it returned %s after the end of the lease, want %s at most", late, after)
				}
			})
		})
	}
}
