package keepalive

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// cluster answers as a Store does that speaks to several servers, one of which hangs until the end of an outage, and has
// the leases with ids that begin with "hung".
type cluster struct {
	began  time.Time
	outage time.Duration

	mu    sync.Mutex
	owed  int
	asked time.Time
	most  int // asked at once
}

func (c *cluster) hangs() time.Duration { return c.outage - time.Since(c.began) }

func (c *cluster) answer(ctx context.Context, renewals []store.Renewal, tell store.RenewedFunc) []store.RenewResult {
	results := all(renewals, store.RenewUnanswered)
	left := time.Duration(1 << 62)

	var there, elsewhere []int

	for i, r := range renewals {
		if strings.HasPrefix(r.LockID, "hung") {
			there, left = append(there, i), min(left, r.Left)
		} else {
			elsewhere = append(elsewhere, i)
		}
	}

	renew := func(places []int) {
		renewed := renewedAll(make([]store.Renewal, len(places)))

		for i, place := range places {
			renewed[i].Lease = renewals[place].TTL
			results[place] = renewed[i]
		}

		tell(places, renewed, time.Now())
	}

	ask := func() {
		c.mu.Lock()
		wait := c.owed > 0 && time.Since(c.asked) < left/2

		if wait || len(there) == 0 {
			c.mu.Unlock()

			return
		}

		c.owed++
		c.asked = time.Now()
		c.most = max(c.most, c.owed)
		c.mu.Unlock()

		timer := time.NewTimer(max(c.hangs(), 0))
		defer timer.Stop()

		select {
		case <-timer.C:
			renew(there)
		case <-ctx.Done():
		}

		c.mu.Lock()
		defer c.mu.Unlock()

		c.owed--
	}

	c.mu.Lock()
	first := c.owed == 0 // nobody knows yet
	c.mu.Unlock()

	if first {
		ask()
		renew(elsewhere)
	} else {
		renew(elsewhere)
		ask()
	}

	return results
}

// TestServerOfManyHangs: of several servers one hangs. The leases of the others are renewed in time, however many there
// are. Its own are lost when their terms are over, for want of an answer.
func TestServerOfManyHangs(t *testing.T) {
	t.Parallel()

	for _, leases := range []int{2, 100, 3 * batchLimit} {
		for _, ttl := range []time.Duration{time.Second, 6 * time.Second, 30 * time.Second} {
			t.Run(fmt.Sprintf("%d leases of %s", leases, ttl), func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					c := &cluster{began: time.Now(), outage: 5 * ttl}
					s := newServer()
					s.parts = c.answer

					var (
						r       = New(s.open, func(Trouble) {})
						holders [2][]*holder
						lasts   = hold(r, "hung and lasts", 20*ttl, 5*ttl)
					)

					for i := range leases {
						holders[0] = append(holders[0], hold(r, fmt.Sprint("hung ", i), ttl, ttl/3))
						holders[1] = append(holders[1], hold(r, fmt.Sprint("healthy ", i), ttl, ttl/3))
					}

					time.Sleep(c.outage + ttl)

					for _, h := range holders[0] {
						h.wantLost(t, ttl-ttl/10, false, nil)

						if loss := h.lost[0]; loss.Unanswered == 0 || loss.Locked || loss.Err != nil {
							t.Errorf("%s was lost for %+v", h.LockID, loss)
						}
					}

					for _, h := range append(holders[1], lasts) {
						h.wantHeld(t)

						if h != lasts && h.renewals() < 12 {
							t.Errorf("%s was renewed %d times in %s", h.LockID, h.renewals(), c.outage+ttl)
						}

						r.Remove(&h.Lease)
					}

					if lasts.renewals() == 0 {
						t.Error("what outlasts the outage was not renewed after it")
					}

					wantAtRest(t, r, s)
				})
			})
		}
	}
}

// TestToldTwice: an answer that was told before counts once, and a lease that was removed meanwhile is left alone.
func TestToldTwice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		var removed func()

		s.parts = func(_ context.Context, renewals []store.Renewal, tell store.RenewedFunc) []store.RenewResult {
			results := renewedAll(renewals)

			for i, renewal := range renewals {
				if renewal.LockID == "refused" {
					results[i] = store.RenewResult{State: store.RenewUnanswered, Err: errDown}

					continue
				}

				tell([]int{i}, results[i:i+1], time.Now())
				removed()
				tell([]int{i}, results[i:i+1], time.Now())
			}

			return results
		}

		r := New(s.open, func(Trouble) {})
		a, b, refused := newHolder("a", 20*time.Second), newHolder("b", 20*time.Second), newHolder("refused", 20*time.Second)
		removed = func() { r.Remove(&b.Lease) }

		for _, h := range []*holder{a, b, refused} {
			r.Add(&h.Lease, termOf(time.Minute))
		}

		time.Sleep(30 * time.Second)

		if a.renewals() != 1 || b.renewals() > 1 || refused.renewals() != 0 {
			t.Errorf("renewed %d, %d and %d times", a.renewals(), b.renewals(), refused.renewals())
		}

		time.Sleep(time.Minute)
		a.wantHeld(t)
		refused.wantLost(t, 54*time.Second, false, errDown)
		r.Remove(&a.Lease)
		wantAtRest(t, r, s)
	})
}

// TestToldWhileUnderWay: an answer counts when it is told, though the attempt goes on.
func TestToldWhileUnderWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()

		s.parts = func(ctx context.Context, renewals []store.Renewal, tell store.RenewedFunc) []store.RenewResult {
			results := all(renewals, store.RenewUnanswered)

			for i, renewal := range renewals {
				if renewal.LockID == "a" {
					results[i] = renewedAll(renewals)[i]
					tell([]int{i}, results[i:i+1], time.Now())
				}
			}

			<-ctx.Done()

			return results
		}

		r := New(s.open, func(Trouble) {})
		a, b := newHolder("a", 20*time.Second), newHolder("b", 20*time.Second)

		for _, h := range []*holder{a, b} {
			r.Add(&h.Lease, termOf(time.Minute))
		}

		time.Sleep(30 * time.Second)

		if a.renewals() != 1 || b.renewals() != 0 {
			t.Errorf("renewed %d and %d times, want the first alone", a.renewals(), b.renewals())
		}

		r.Remove(&a.Lease)
		r.Remove(&b.Lease)
		wantAtRest(t, r, s)
	})
}
