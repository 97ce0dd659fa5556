package keepalive

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// refusal is an error of the server.
type refusal string

func (r refusal) Error() string    { return "SQLSTATE " + string(r) }
func (r refusal) SQLState() string { return string(r) }

// refusing answers statements that one of the leases is part of by an error, when after has
// passed.
func refusing(err error, after time.Duration, culprits ...string) answerFunc {
	return func(_ context.Context, _ int, renewals []store.Renewal) ([]store.RenewResult, error) {
		for _, r := range renewals {
			for _, id := range culprits {
				if r.LockID == id {
					time.Sleep(after)

					return nil, err
				}
			}
		}

		return renewedAll(renewals), nil
	}
}

// TestOneRefused: the server refuses the renewal of some leases, and so every statement that
// they are part of, at once or after some time. They are lost, and say why; the others are kept.
func TestOneRefused(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		code     refusal
		after    time.Duration
		ttl      time.Duration
		leases   int
		culprits []string
	}{
		{"P0001", 0, 30 * time.Second, 20, []string{"7"}},
		{"54000", 0, 30 * time.Second, 20, []string{"0"}},
		{"XX001", 0, 30 * time.Second, 20, []string{"19"}},
		{"58030", 0, 30 * time.Second, 20, []string{"19"}},
		{"40001", 0, 30 * time.Second, 20, []string{"10", "11"}},
		{"23514", 0, time.Second, 20, []string{"3", "4", "18"}},
		{"57014", 300 * time.Millisecond, 10 * time.Second, 20, []string{"9"}},
		{"55P03", 100 * time.Millisecond, 3 * time.Second, 20, []string{"9", "12"}},
		{"42501", 0, 30 * time.Second, 1000, []string{"500"}},
		{"P0001", 0, 30 * time.Second, 1, []string{"0"}},
	} {
		name := fmt.Sprintf("%s-%s-%s-%d-of-%d", string(test.code), test.after, test.ttl, len(test.culprits), test.leases)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := newServer()
				s.answer = refusing(test.code, test.after, test.culprits...)
				r := New(s.open, func(Trouble) {})

				var holders []*holder

				for i := range test.leases {
					holders = append(holders, hold(r, fmt.Sprint(i), test.ttl, test.ttl/3))
				}

				time.Sleep(test.ttl)

				culprit := make(map[string]bool)
				for _, id := range test.culprits {
					culprit[id] = true
				}

				for _, h := range holders {
					if culprit[h.LockID] {
						h.wantLost(t, test.ttl*9/10, false, test.code)

						continue
					}

					h.wantHeld(t)

					if h.renewals() == 0 {
						t.Errorf("%s was not renewed", h.LockID)
					}

					r.Remove(&h.Lease)
				}

				wantAtRest(t, r, s)
			})
		})
	}
}

// rows are locked by the statements under way: another passes over them, and says busy after a
// time.
type rows struct {
	after  time.Duration
	mu     sync.Mutex
	locked map[string]bool
}

type answerFunc = func(context.Context, int, []store.Renewal) ([]store.RenewResult, error)

func (r *rows) locking(answer answerFunc) answerFunc {
	return func(ctx context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
		var free []store.Renewal

		r.mu.Lock()

		results := all(renewals, store.RenewBusy)
		for i, renewal := range renewals {
			if !r.locked[renewal.LockID] {
				r.locked[renewal.LockID] = true
				free = append(free, renewal)
				results[i].State = store.Renewed
			}
		}
		r.mu.Unlock()

		_, err := answer(ctx, n, free)

		if len(free) == 0 {
			time.Sleep(r.after)
		}

		r.mu.Lock()
		defer r.mu.Unlock()

		for _, renewal := range free {
			delete(r.locked, renewal.LockID)
		}

		return results, err
	}
}

// TestRefusedLate: the refusal comes when the patience with the attempt has ended. The next attempts
// find the row locked by that one, and say so before its answer or after. The loss is for what the
// server said, not for the lock.
func TestRefusedLate(t *testing.T) {
	t.Parallel()

	for after := time.Duration(0); after <= time.Second; after += 50 * time.Millisecond {
		t.Run(after.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const (
					ttl  = 10 * time.Second
					code = refusal("57014")
				)

				s := newServer()
				locked := rows{after: after, locked: make(map[string]bool)}
				s.answer = locked.locking(refusing(code, time.Second, "0"))
				r := New(s.open, func(Trouble) {})

				leases := 1
				if after == 0 { // there is time for the division
					leases = 8
				}

				var holders []*holder

				for i := range leases {
					holders = append(holders, hold(r, fmt.Sprint(i), ttl, ttl/3))
				}

				time.Sleep(ttl)

				for i, h := range holders {
					if i == 0 {
						h.wantLost(t, ttl*9/10, false, code)

						continue
					}

					h.wantHeld(t)
					r.Remove(&h.Lease)
				}

				wantAtRest(t, r, s)
			})
		})
	}
}

// TestCulpritStaysAlone: once found, a lease that is refused costs the others nothing, until
// it was renewed.
func TestCulpritStaysAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const ttl = time.Hour

		s := newServer()
		r := New(s.open, func(Trouble) {})
		refuse := refusing(refusal("P0001"), 0, "7")
		since := func(from, to time.Duration) bool {
			at := time.Since(s.start)

			return at > from && at < to
		}
		s.answer = func(ctx context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
			if since(0, 50*time.Minute) {
				return refuse(ctx, n, renewals)
			}

			return renewedAll(renewals), nil
		}

		var holders []*holder
		for i := range 20 {
			holders = append(holders, hold(r, fmt.Sprint(i), ttl, ttl/6))
		}

		time.Sleep(2 * time.Hour)

		refused := 0

		for _, st := range s.sent() {
			with := false
			for _, renewal := range st.renewals {
				with = with || renewal.LockID == "7"
			}

			if with && len(st.renewals) > 1 && st.at < 50*time.Minute {
				refused++
			}
		}

		// 20, 10, 5, 3 or 2, and 2 perhaps.
		if refused < 4 || refused > 5 {
			t.Errorf("%d statements were refused for others on account of one lease, want 4 or 5", refused)
		}

		r.mu.Lock()

		for _, h := range holders {
			if h.party != 0 {
				t.Errorf("%s is kept apart although it was renewed", h.LockID)
			}
		}

		r.mu.Unlock()

		if s.opened > 5 {
			t.Errorf("%d sessions: a refusal is no fault of a session that works", s.opened)
		}

		for _, h := range holders {
			h.wantHeld(t)
			r.Remove(&h.Lease)
		}

		wantAtRest(t, r, s)
	})
}

// TestNotDivided: what is about the server as a whole is no reason to ask it for each lease.
func TestNotDivided(t *testing.T) {
	t.Parallel()

	for _, err := range []error{errDown, refusal("25006"), refusal("53300"), refusal("57P01"), refusal("42P01"), context.DeadlineExceeded} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer()
			s.answer = func(_ context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
				if n < 3 {
					return nil, err
				}

				return renewedAll(renewals), nil
			}
			r := New(s.open, func(Trouble) {})

			var holders []*holder
			for i := range 20 {
				holders = append(holders, hold(r, fmt.Sprint(i), 30*time.Second, 10*time.Second))
			}

			time.Sleep(12 * time.Second)

			for _, st := range s.sent() {
				if len(st.renewals) != 20 {
					t.Errorf("%v: %d renewals in one statement, want all of them", err, len(st.renewals))
				}
			}

			if s.opened < 4 {
				t.Errorf("%v: %d sessions, want another after each error", err, s.opened)
			}

			for _, h := range holders {
				h.wantHeld(t)
				r.Remove(&h.Lease)
			}

			wantAtRest(t, r, s)
		})
	}
}

// TestPanic: a driver that panics costs the attempt, and the loss says so.
func TestPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var told ledger

		s := newServer()
		r := New(func() Session { return panics{s.open()} }, told.add)
		h := hold(r, "a", 30*time.Second, 10*time.Second)

		wantAtRest(t, r, s)
		h.wantLost(t, 27*time.Second, false, nil)

		if !errors.Is(h.lost[0].Err, ErrPanic) || !strings.Contains(h.lost[0].Err.Error(), "the driver's") {
			t.Errorf("lost for %v", h.lost[0].Err)
		}

		if troubles := told.all(); len(troubles) < 2 || !errors.Is(troubles[0].Err, ErrPanic) {
			t.Errorf("told of %v", troubles)
		}
	})
}

type panics struct{ Session }

func (panics) Renew(context.Context, []store.Renewal, store.RenewedFunc) ([]store.RenewResult, time.Time, error) {
	panic("the driver's")
}

// TestOpenedLate: the first attempt waits for its connection, so the second has the row locked when
// it gets there, and the third finds it locked, too. Neither is the cause of the loss.
func TestOpenedLate(t *testing.T) {
	t.Parallel()

	for connect := time.Duration(0); connect <= 3*time.Second; connect += 50 * time.Millisecond {
		t.Run(connect.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const (
					ttl  = 10 * time.Second
					code = refusal("57014")
				)

				s := newServer()
				s.connect = connect
				s.begins = func() { s.connect = connect - s.connect }
				locked := rows{locked: make(map[string]bool)}
				s.answer = locked.locking(refusing(code, 2*time.Second, "0"))
				r := New(s.open, func(Trouble) {})
				h := hold(r, "0", ttl, ttl/3)

				time.Sleep(ttl)

				h.wantLost(t, ttl*9/10, false, code)
				wantAtRest(t, r, s)
			})
		})
	}
}
