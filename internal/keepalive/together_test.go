package keepalive

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// TestSlowNeighbour: a lease with much time left waits patiently for an answer
// that doesn't come; one with little time that falls due meanwhile doesn't wait
// with it.
func TestSlowNeighbour(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(ctx context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
			if n == 0 {
				return silent(ctx)
			}

			return renewedAll(renewals), nil
		}
		r := New(s.open, func(Trouble) {})
		patient := hold(r, "patient", time.Hour, time.Minute)

		time.Sleep(time.Minute)

		if s.count() != 1 {
			t.Fatalf("%d statements in the first minute, want one", s.count())
		}

		urgent := hold(r, "urgent", 3*time.Second, time.Second)

		time.Sleep(time.Minute)
		urgent.wantHeld(t)
		patient.wantHeld(t)

		if urgent.renewals() < 60 {
			t.Errorf("the urgent lease was renewed %d times in a minute", urgent.renewals())
		}

		r.Remove(&urgent.Lease)
		r.Remove(&patient.Lease)
		wantAtRest(t, r, s)
	})
}

// TestDifferentTerms: each lease is lost at the end of its own term.
func TestDifferentTerms(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(ctx context.Context, _ int, _ []store.Renewal) ([]store.RenewResult, error) { return silent(ctx) }
		r := New(s.open, func(Trouble) {})
		short := hold(r, "short", time.Second, 300*time.Millisecond)
		long := hold(r, "long", time.Minute, 20*time.Second)

		wantAtRest(t, r, s)
		short.wantLost(t, 900*time.Millisecond, false, nil)
		long.wantLost(t, 54*time.Second, false, nil)
	})
}

// TestSleptThrough: a machine that slept past the end of the term finds the lease
// lost at its next look, though the monotonic clock stood still. The clocks of a
// synctest bubble are one, hence this test has none.
func TestSleptThrough(t *testing.T) {
	t.Parallel()

	s := newServer()
	r := New(s.open, func(Trouble) {})
	h := newHolder("a", 20*time.Minute)
	term := termOf(time.Hour)

	r.Add(&h.Lease, term)
	longer := hold(r, "longer", 24*time.Hour, 20*time.Minute)

	r.step(t.Context(), clocks(t, term.Sent, time.Second, 2*time.Hour))

	if h.losses() != 1 {
		t.Errorf("lost %d times, want once", h.losses())
	}

	r.Remove(&h.Lease)
	longer.wantHeld(t)
	r.Remove(&longer.Lease)
	wantAtRest(t, r, s)
}

// TestClockIsWatched: while anything is held the clocks are looked at often, so
// that a machine which wakes up doesn't believe for long in what it held.
func TestClockIsWatched(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		r := New(s.open, func(Trouble) {})
		h := hold(r, "a", time.Hour, 20*time.Minute)

		synctest.Wait()

		if next := r.step(t.Context(), time.Now()); next > time.Second {
			t.Errorf("the next look is in %s", next)
		}

		r.Remove(&h.Lease)
		wantAtRest(t, r, s)
	})
}

// TestRemovedInSilence: no renewal is sent for a lease that was removed while an attempt for it
// had no answer.
func TestRemovedInSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(ctx context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
			if n == 0 {
				return silent(ctx)
			}

			return renewedAll(renewals), nil
		}
		r := New(s.open, func(Trouble) {})
		kept := hold(r, "kept", 30*time.Second, 10*time.Second)
		removed := hold(r, "removed", 30*time.Second, 10*time.Second)

		time.Sleep(10 * time.Second)
		r.Remove(&removed.Lease)
		time.Sleep(time.Minute)
		kept.wantHeld(t)

		for i, st := range s.sent() {
			if want := max(2-i, 1); len(st.renewals) != want || st.renewals[len(st.renewals)-1].LockID == "removed" && i > 0 {
				t.Errorf("statement %d renews %v", i, st.renewals)
			}
		}

		r.Remove(&kept.Lease)
		wantAtRest(t, r, s)
	})
}
