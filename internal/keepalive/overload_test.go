package keepalive

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// TestOverload: a server that is just fast enough for 100,000 leases loses none of them. Statements that run side by
// side share its time, so none may be doubled because it has many leases.
func TestOverload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const (
			leases   = 100_000
			ttl      = 30 * time.Second
			perLease = 256 * time.Microsecond // 290 µs with those at rest would be the whole term
			step     = 50
		)

		var (
			s       = newServer()
			slow    atomic.Bool
			active  atomic.Int64
			longest atomic.Int64
		)

		s.answer = func(ctx context.Context, _ int, renewals []store.Renewal) ([]store.RenewResult, error) {
			active.Add(1)
			defer active.Add(-1)

			longest.Store(max(longest.Load(), int64(len(renewals))))

			for n := 0; n < len(renewals); n += step {
				time.Sleep(step * 10 * time.Microsecond)

				if slow.Load() {
					time.Sleep(step * perLease * time.Duration(active.Load()))
				}

				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
			}

			return renewedAll(renewals), nil
		}

		r := New(s.open, func(Trouble) {})
		holders := make([]*holder, leases)

		for n := range holders {
			holders[n] = newHolder(fmt.Sprintf("%07d", n), ttl/3)
			r.Add(&holders[n].Lease, Term{Sent: time.Now(), TTL: ttl, Margin: time.Second})

			if n%step == 0 {
				time.Sleep(5 * time.Millisecond)
			}
		}

		time.Sleep(ttl / 3)

		if longest.Load() <= batchLimit {
			t.Errorf("at rest a statement renews %d leases, want more than %d", longest.Load(), batchLimit)
		}

		slow.Store(true)
		time.Sleep(2 * ttl)
		slow.Store(false)
		time.Sleep(ttl / 3)

		lost := 0

		for _, h := range holders {
			lost += min(h.losses(), 1)
			r.Remove(&h.Lease)
		}

		r.Wait()

		if lost > 0 {
			t.Errorf("%d of %d leases were lost", lost, leases)
		}
	})
}
