package keepalive

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/race"
	"github.com/ismurov/pglocker/internal/store"
)

// TestMostUrgentFirst: after an outage more leases are due than one statement renews. All the
// statements take longer than the short leases run.
func TestMostUrgentFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const outage = 23 * time.Second

		// The line is 10 s long, or 5 s with the race detector, and the short leases end 2 s after
		// the outage.
		batches := 50
		if race.Enabled {
			batches = 25
		}

		s := newServer()
		s.answer = func(_ context.Context, _ int, renewals []store.Renewal) ([]store.RenewResult, error) {
			if time.Since(s.start) < outage {
				return nil, errDown
			}

			time.Sleep(200 * time.Millisecond)

			return renewedAll(renewals), nil
		}
		r := New(s.open, func(Trouble) {})

		var holders []*holder

		for i := range batches * batchLimit {
			holders = append(holders, hold(r, fmt.Sprint(i), time.Minute, 20*time.Second))
		}

		time.Sleep(outage - 2*time.Second)

		for i := range 20 {
			holders = append(holders, hold(r, fmt.Sprint("short ", i), 4*time.Second, time.Second))
		}

		time.Sleep(20 * time.Second)

		for _, h := range holders {
			h.wantHeld(t)

			if h.renewals() == 0 {
				t.Errorf("%s was not renewed", h.LockID)
			}

			r.Remove(&h.Lease)
		}

		wantAtRest(t, r, s)
	})
}

// TestClockIsSet: terms end when they should by both clocks, also if the wall clock is set
// ahead or back, and in that order, not in the one in which they seemed to end before.
func TestClockIsSet(t *testing.T) {
	t.Parallel()

	const margin = time.Second

	r := New(newServer().open, nil)
	r.stop = func() {} // no loop of its own: this test is the loop

	var (
		start = time.Now()
		// monotonic is how far that clock has gone, and set by how much the other is ahead.
		monotonic, set time.Duration
		ends           = make(map[*holder]time.Duration)
	)

	now := func() time.Time { return clocks(t, start, monotonic, monotonic+set) }

	// add adds a lease that ends, by the monotonic clock, when the test says.
	add := func(id string, ttl, end time.Duration) {
		h := newHolder(id, 100*time.Hour)
		h.term = Term{Sent: now(), TTL: ttl, Margin: margin}
		ends[h] = end - margin

		r.mu.Lock()
		defer r.mu.Unlock()

		h.held = true
		r.ends.put(&h.Lease, r.end(&h.Lease, now()))
		r.wait(&h.Lease, now().Add(100*time.Hour))
	}

	// until lets the loop look until then, in large steps where no term ends.
	until := func(end time.Duration) {
		for monotonic < end {
			next := r.step(t.Context(), now())
			if next > clockCheck {
				t.Fatalf("after %s the next look is in %s", monotonic, next)
			}

			step := min(30*time.Second, end-monotonic)

			for h, end := range ends {
				if lost := h.losses() > 0; lost != (monotonic >= end) {
					t.Fatalf("after %s: %s, which ends after %s, is lost: %t", monotonic, h.LockID, end, lost)
				}

				if left := end - monotonic; left > 0 && left < time.Minute {
					step = min(step, next)
				}
			}

			monotonic += step
		}
	}

	add("old", 10*time.Hour, 10*time.Hour)
	add("oldest", 30*time.Hour, 26*time.Hour)
	until(time.Hour)

	set = 5 * time.Hour // the old one seems to end after 5 h

	until(time.Hour + time.Minute)
	add("new", 4*time.Hour-time.Minute+200*time.Millisecond, 5*time.Hour+200*time.Millisecond)
	until(2 * time.Hour)

	set = 0 // it does not

	until(11 * time.Hour)
	add("between", 10*time.Hour, 17*time.Hour)
	until(11*time.Hour + time.Minute)

	set = 4 * time.Hour // the oldest ends that much earlier

	until(12 * time.Hour)
	add("after", 8*time.Hour, 20*time.Hour)
	add("last", 15*time.Hour, 27*time.Hour)
	until(27 * time.Hour)
}

// TestUrgentAfterSleep: a lease that is due goes by its end, also after the wall clock has got ahead.
func TestUrgentAfterSleep(t *testing.T) {
	t.Parallel()

	r := New(nil, nil)
	soon := &Lease{term: Term{Sent: r.began, TTL: 70 * time.Minute}}
	late := &Lease{term: Term{Sent: r.began, TTL: 90 * time.Minute}}

	for _, l := range []*Lease{soon, late} {
		r.ends.put(l, r.end(l, r.began))
	}

	r.due.put(soon, soon.moments[byEnd])
	r.readClocks(clocks(t, r.began, 0, time.Hour))
	r.due.put(late, late.moments[byEnd])

	if r.due.first() != soon {
		t.Error("the lease that ends 20 minutes later goes first")
	}
}

// TestTroubles: of what goes wrong the renewer tells how many leases it is about, which of
// them is lost first and what is in the way, and when it is over.
func TestTroubles(t *testing.T) {
	t.Parallel()

	for name, test := range map[string]struct {
		answer  func(ctx context.Context, renewals []store.Renewal) ([]store.RenewResult, error)
		connect time.Duration
		want    func(Cause) bool
	}{
		"error": {
			answer: func(context.Context, []store.Renewal) ([]store.RenewResult, error) { return nil, errDown },
			want:   func(c Cause) bool { return c == Cause{Err: errDown, Since: c.Since} },
		},
		"silence": {
			answer: func(ctx context.Context, _ []store.Renewal) ([]store.RenewResult, error) { return silent(ctx) },
			want:   func(c Cause) bool { return c == Cause{Unanswered: c.Unanswered, Since: c.Since} && c.Unanswered > 0 },
		},
		"no connection": {
			connect: time.Hour,
			want: func(c Cause) bool {
				return c == Cause{Unanswered: c.Unanswered, Opening: true, Since: c.Since} && c.Unanswered > 0
			},
		},
		"locked": {
			answer: func(_ context.Context, renewals []store.Renewal) ([]store.RenewResult, error) {
				return all(renewals, store.RenewBusy), nil
			},
			want: func(c Cause) bool { return c == Cause{Locked: true, Since: c.Since} },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				var (
					told   ledger
					broken atomic.Bool
					locked int64
				)

				s := newServer()
				broken.Store(true)
				s.connect = test.connect
				s.answer = func(ctx context.Context, _ int, renewals []store.Renewal) ([]store.RenewResult, error) {
					if broken.Load() && test.answer != nil {
						return test.answer(ctx, renewals)
					}

					return renewedAll(renewals), nil
				}
				r := New(s.open, told.add)

				var holders []*holder

				for i := range 20 {
					ttl := time.Minute
					if i == 7 {
						ttl = 30 * time.Second
					}

					h := newHolder(fmt.Sprint(i), 10*time.Second)
					r.Add(&h.Lease, termOf(ttl))

					holders = append(holders, h)
				}

				time.Sleep(10 * time.Second)
				synctest.Wait()

				if name == "locked" && len(told.all()) > 0 {
					t.Errorf("told at once of a row that is locked: %+v", told.all())
				}

				time.Sleep(12 * time.Second)
				synctest.Wait()

				troubles := told.all()
				if len(troubles) == 0 {
					t.Fatal("not told")
				}

				last := troubles[len(troubles)-1]
				if last.LockID != "7" || last.Generation != 7 || !test.want(last.Cause) || last.Left <= 0 || last.Left > 17*time.Second {
					t.Errorf("told of %+v", last)
				}

				for _, h := range holders {
					locked += h.met.Load()
				}

				if name != "locked" && last.Locks != 20 || (locked > 0) != (name == "locked") {
					t.Errorf("%d locks, %d times locked", last.Locks, locked)
				}

				time.Sleep(15 * time.Second)
				synctest.Wait()

				holders[7].mu.Lock()
				loss := holders[7].lost
				holders[7].mu.Unlock()

				if len(loss) != 1 || loss[0].Gone || !test.want(loss[0].Cause) || loss[0].Since != 27*time.Second {
					t.Errorf("lost for %+v", loss)
				}

				broken.Store(false)
				s.mu.Lock()
				s.connect = 0
				s.mu.Unlock()

				time.Sleep(15 * time.Second)
				synctest.Wait()

				troubles = told.all()
				if last := troubles[len(troubles)-1]; last.Locks != 0 {
					t.Errorf("told last of %+v, want the end", last)
				}

				for i, h := range holders {
					if i != 7 {
						h.wantHeld(t)
						r.Remove(&h.Lease)
					}
				}

				wantAtRest(t, r, s)
			})
		})
	}
}

// ledger keeps the troubles that a renewer tells of.
type ledger struct {
	mu       sync.Mutex
	troubles []Trouble
}

func (l *ledger) add(trouble Trouble) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.troubles = append(l.troubles, trouble)
}

func (l *ledger) all() []Trouble {
	l.mu.Lock()
	defer l.mu.Unlock()

	return slices.Clone(l.troubles)
}
