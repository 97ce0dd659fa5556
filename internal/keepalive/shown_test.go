package keepalive

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// TestShown: a term is as long as was asked for, or as the row shows, whichever is less.
func TestShown(t *testing.T) {
	t.Parallel()

	term := Term{Sent: time.Now(), TTL: 30 * time.Second, Margin: time.Second}

	for shown, left := range map[time.Duration]time.Duration{
		30 * time.Second:        29 * time.Second,
		30*time.Second + 1:      29 * time.Second,
		time.Hour:               29 * time.Second, // a minimum hold
		30*time.Second - 1:      29*time.Second - 1,
		5 * time.Second:         4 * time.Second,
		time.Second:             0,
		200_000_000:             -800 * time.Millisecond,
		0:                       -time.Second,
		-time.Hour:              -time.Second,
		-200 * 365 * 24 * 36e11: -time.Second,
	} {
		got := term.Shown(shown)
		if l := got.Left(term.Sent); l != left {
			t.Errorf("a row that shows %s: %s are left, want %s", shown, l, left)
		}

		if l := got.LeaseLeft(term.Sent); l != left+term.Margin {
			t.Errorf("a row that shows %s: %s of the lease are left, want %s", shown, l, left+term.Margin)
		}

		if got.TTL != term.TTL {
			t.Errorf("a row that shows %s: the next renewal asks for %s", shown, got.TTL)
		}
	}
}

// cutting answers renewals by rows that show no more than that.
func cutting(lease time.Duration) func(context.Context, int, []store.Renewal) ([]store.RenewResult, error) {
	return func(_ context.Context, _ int, renewals []store.Renewal) ([]store.RenewResult, error) {
		results := renewedAll(renewals)
		for i := range results {
			results[i].Lease = min(results[i].Lease, lease)
		}

		return results, nil
	}
}

// TestShortLeases: renewals come as often as a lease needs them that the table cuts, and
// keep asking for the whole TTL.
func TestShortLeases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = cutting(6 * time.Second)
		r := New(s.open, func(Trouble) {})

		h := newHolder("a", 10*time.Second)
		r.Add(&h.Lease, termOf(30*time.Second).Shown(6*time.Second)) // with a margin of 3 s

		last := time.Now()

		for range 100 {
			n := s.count()

			time.Sleep(2 * time.Second)
			h.wantHeld(t)

			if s.count() == n {
				t.Fatalf("no renewal within %s", time.Since(last))
			}

			last = time.Now()
		}

		for _, st := range s.sent() {
			if st.renewals[0].TTL != 30*time.Second {
				t.Fatalf("asked for %s", st.renewals[0].TTL)
			}
		}

		r.Remove(&h.Lease)
		wantAtRest(t, r, s)
	})
}

// TestShortRenewal: a renewal that shows less than the grant did ends the term earlier.
func TestShortRenewal(t *testing.T) {
	t.Parallel()

	for shown, lostAt := range map[time.Duration]time.Duration{
		5 * time.Second: 2 * time.Second, // with a margin of 3 s
		3 * time.Second: 0,
		time.Second:     0,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := newServer()
			s.answer = func(ctx context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
				if n == 0 {
					return cutting(shown)(ctx, n, renewals)
				}

				return nil, errDown
			}
			r := New(s.open, func(Trouble) {})
			h := newHolder("a", 10*time.Second)
			h.RenewNow = true

			time.Sleep(time.Second)

			term := termOf(30 * time.Second)

			time.Sleep(time.Nanosecond) // the clocks of a bubble stand still otherwise

			start := time.Now()
			r.Add(&h.Lease, term)
			wantAtRest(t, r, s)

			at := time.Second + 1 + lostAt
			if lostAt == 0 {
				at = start.Sub(s.start)
			}

			// A holder counts from when it was made.
			h.wantLost(t, max(at, h.lostAt-time.Microsecond), false, nil)

			if h.lost[0].Short != 30*time.Second-shown {
				t.Errorf("short by %s", h.lost[0].Short)
			}
		})
	}
}

// TestLongRow: a row that shows more than was asked for lengthens nobody's belief.
func TestLongRow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(_ context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
			if n > 0 {
				return nil, errDown
			}

			results := renewedAll(renewals)
			results[0].Lease = time.Hour

			return results, nil
		}
		r := New(s.open, func(Trouble) {})
		h := hold(r, "a", 30*time.Second, 10*time.Second)

		wantAtRest(t, r, s)
		h.wantLost(t, s.sent()[0].at+27*time.Second, false, errDown)
	})
}
