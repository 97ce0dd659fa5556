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

// TestLimit: a statement has many leases where many are held, and few where that would be too slow.
func TestLimit(t *testing.T) {
	t.Parallel()

	now := time.Now()
	r := New(newServer().open, func(Trouble) {})
	r.due.put(&Lease{term: Term{Sent: now, TTL: 30 * time.Second, Margin: time.Second}}, 0)

	want := func(what string, now time.Time, limit int) {
		t.Helper()

		if got := r.limit(now); got != limit {
			t.Errorf("%s: %d leases, want %d", what, got, limit)
		}
	}

	for held, limit := range map[int]int{1: batchLimit, 40_000: batchLimit, 100_000: 2500, 1_000_000: batchMost} {
		r.held = held
		want(fmt.Sprint(held, " are held"), now.Add(10*time.Second), limit)
	}

	r.held = 1_000_000
	want("half of the term is left", now.Add(14*time.Second), batchMost)
	want("less is left", now.Add(15*time.Second), batchLimit)

	r.attempts[&attempt{}] = struct{}{}
	want("an attempt hangs", now, batchLimit)
}

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
