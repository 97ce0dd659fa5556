package faulttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestLateGrantToWhoWaits: who waits goes on waiting after such a grant, for the next,
// however it came: by the first request, by asking again, or by a hand-over.
func TestLateGrantToWhoWaits(t *testing.T) {
	t.Parallel()

	const ttl = 300 * time.Millisecond

	for _, way := range []struct {
		name string
		// heldFor is for how long another holds the lock.
		heldFor time.Duration
		// handedOver: it is held in the same Locker, which lets it go to who waits.
		handedOver bool
	}{
		{name: "first request"},
		{name: "asking again", heldFor: 200 * time.Millisecond},
		{name: "hand-over", handedOver: true},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			eachLossy(t, func(t *testing.T, l *lossy) {
				var (
					ctx    = t.Context()
					late   atomic.Bool
					holder *pglocker.Lock
					err    error
				)

				contract.Exec(t, l.direct, `UPDATE pglocker.lock_statuses SET generation = generation + 1,
					expires_at = clock_timestamp() + $1 * interval '1 microsecond'`, way.heldFor.Microseconds())

				if way.handedOver {
					holder, err = l.locker.Lock(ctx, "a", time.Minute)
					contract.Must(t, err)
				}

				before, _ := l.row(t)

				l.proxy.onAnswer(func() fate {
					if generation, held := l.row(t); generation > before && held && !late.Swap(true) {
						time.Sleep(ttl)
					}

					return pass
				})

				locked := make(chan error, 1)

				go func() {
					lock, err := l.locker.Lock(ctx, "a", ttl)
					if err == nil {
						_ = lock.Unlock(ctx) // perhaps its lease is over, too
					}

					locked <- err
				}()

				if way.handedOver {
					contract.Receive(t, "somebody waits", l.watcher.InLine())
					contract.Must(t, holder.Unlock(ctx))
				}

				if err := contract.Receive(t, "Lock returns", locked); err != nil || !late.Load() {
					t.Errorf("Lock: %v, and a grant came late: %t, want one that came in time after that", err, late.Load())
				}
			})
		})
	}
}

// TestLateGrant: a grant whose reply comes after its lease is none to work under.
func TestLateGrant(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		const ttl = 500 * time.Millisecond

		before, _ := l.row(t)

		l.proxy.onAnswer(func() fate {
			if generation, held := l.row(t); generation > before && held {
				time.Sleep(ttl)
			}

			return pass
		})

		err := l.locker.Do(t.Context(), "a", ttl, ttl/2, func(context.Context) error {
			t.Error("fn was called")

			return nil
		})
		if !errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("Do: %v, want ErrLockLost", err)
		}
	})
}

// TestCloseWaitsForLateGrants: callers leave while the server's answers are late. What they
// were granted is released before Close returns.
func TestCloseWaitsForLateGrants(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		if !l.owners {
			t.Skip("what is granted to a caller that has left is left to expire")
		}

		const callers = 40

		var late atomic.Bool

		late.Store(true)
		l.proxy.onAnswer(func() fate {
			if late.Load() {
				time.Sleep(150 * time.Millisecond) // a slow network
			}

			return pass
		})

		ctx, leave := context.WithCancel(t.Context())

		var (
			group sync.WaitGroup
			kept  atomic.Int64
		)

		for i := range callers {
			group.Go(func() {
				switch _, err := l.locker.AcquireLock(ctx, fmt.Sprint(i), time.Hour); {
				case err == nil:
					kept.Add(1)
				case !errors.Is(err, context.Canceled):
					t.Error(err)
				}
			})
		}

		held := func() int64 {
			return contract.Query[int64](t, l.direct, "SELECT count(*) FROM pglocker.lock_statuses WHERE expires_at > clock_timestamp()")
		}

		contract.Await(t, "the database grants locks", func() bool { return held() > 0 })
		leave()
		group.Wait()

		late.Store(false)
		contract.CloseLocker(t, l.locker)

		if n := held(); n > kept.Load() {
			t.Errorf("%d locks are held after Close, of which callers know %d", n, kept.Load())
		}
	})
}
