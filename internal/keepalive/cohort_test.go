package keepalive

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// TestCohorts: leases come and go, and answers are of all kinds. Each lease is in the queues of its state, by itself or
// by the first of its cohort, and none that the server renews is lost.
func TestCohorts(t *testing.T) {
	t.Parallel()

	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var (
					random = rand.New(rand.NewPCG(seed, 0))
					s      = newServer()
					r      = New(s.open, func(Trouble) {})
					held   []*holder
				)

				s.answer = func(ctx context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
					s.mu.Lock()
					kind, busy := random.IntN(10), random.IntN(len(renewals))
					s.mu.Unlock()

					time.Sleep(time.Millisecond)

					results := renewedAll(renewals)

					switch kind {
					case 0:
						return nil, errDown
					case 1:
						return nil, refusal("P0001")
					case 2:
						results[busy] = store.RenewResult{State: store.RenewBusy}
					case 3:
						results[busy].Lease -= time.Second // by a trigger
					case 4:
						time.Sleep(3 * time.Second) // other attempts overtake it
					}

					return results, nil
				}

				ttls := []time.Duration{30 * time.Second, 40 * time.Second}

				for n := range 3000 {
					s.mu.Lock()
					adds, at, ttl := random.IntN(100) < 60 || n < 500, random.IntN(len(held)+1), ttls[random.IntN(2)]
					s.mu.Unlock()

					if adds {
						held = append(held, hold(r, fmt.Sprint(n%97, "-", n), ttl, ttl/3))
					} else if at < len(held) {
						r.Remove(&held[at].Lease)
						held = slices.Delete(held, at, at+1)
					}

					if n%10 == 0 {
						time.Sleep(time.Duration(n) * 100 * time.Microsecond)
						synctest.Wait()
						wantInQueues(t, r, held)
					}
				}

				for _, h := range held {
					h.wantHeld(t)
					r.Remove(&h.Lease)
				}

				r.Wait()

				if r.held != 0 {
					t.Errorf("%d leases are held at rest", r.held)
				}
			})
		})
	}
}

func wantInQueues(t *testing.T, r *Renewer, held []*holder) {
	t.Helper()

	r.mu.Lock()
	defer r.mu.Unlock()

	if r.held != len(held) {
		t.Fatalf("%d leases are counted, want %d", r.held, len(held))
	}

	for _, q := range r.queues() {
		for i, e := range q.entries {
			l := e.lease
			if e.moment != l.moments[q.order] || l.places[q.order] != i+1 || l.cohort != nil && l.cohort.leases[0] != l {
				t.Fatalf("queue %d: lease %s has the wrong place", q.order, l.LockID)
			}
		}
	}

	for _, h := range held {
		l := &h.Lease
		if c := l.cohort; c != nil {
			if c.leases[l.rank] != l || c.leases[0].term != l.term {
				t.Fatalf("lease %s is not in its cohort", l.LockID)
			}

			l = c.leases[0]
		}

		waits, due := l.places[byNext] > 0 && l.places[byEarly] > 0, l.places[byUrgency] > 0
		asked := h.attempt != nil

		if l.places[byEnd] == 0 || waits && due || waits && asked || due && asked || !waits && !due && !asked {
			t.Fatalf("lease %s: places %v, asked %t", h.LockID, l.places, asked)
		}
	}
}
