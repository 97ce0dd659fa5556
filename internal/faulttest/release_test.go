package faulttest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestReleaseIsBounded: a release that the database doesn't answer is given up half a second
// after the lease is over at the latest, whatever the caller's context.
func TestReleaseIsBounded(t *testing.T) {
	t.Parallel()

	const (
		ttl   = 1500 * time.Millisecond
		after = 500 * time.Millisecond
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

				t.Logf("it returned %s after the end of the lease", late)

				if late > after || late < -ttl/2 {
					t.Errorf("it returned %s after the end of the lease, want %s at most", late, after)
				}
			})
		})
	}
}
