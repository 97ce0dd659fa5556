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

func TestRenewsAtTheInterval(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		r := New(s.open, func(Trouble) {})
		h := hold(r, "a", 30*time.Second, 10*time.Second)

		time.Sleep(10 * time.Minute)
		h.wantHeld(t)

		last := time.Duration(0)
		for _, st := range s.sent() {
			if gap := st.at - last; gap < 9*time.Second || gap > 10*time.Second {
				t.Errorf("renewals %s apart, want 9 to 10 s", gap)
			}

			last = st.at
		}

		if len(s.sent()) < 60 || h.renewals() != len(s.sent()) || s.opened != 1 {
			t.Errorf("%d statements, %d renewals, %d sessions", len(s.sent()), h.renewals(), s.opened)
		}

		if got := s.sent()[0].renewals; len(got) != 1 || got[0] != (store.Renewal{LockID: "a", Generation: 7, TTL: 30 * time.Second, Left: got[0].Left}) {
			t.Errorf("sent %+v", got)
		}

		if term := r.Remove(&h.Lease); term.Sent != s.start.Add(last) {
			t.Errorf("the term is counted from %s, the last renewal was sent at %s", term.Sent, s.start.Add(last))
		}

		wantAtRest(t, r, s)
	})
}

// TestIntervalNearTheTTL: a renewal that would come too late to be repeated comes
// earlier.
func TestIntervalNearTheTTL(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(_ context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
			if n%3 != 2 {
				return nil, errDown
			}

			return renewedAll(renewals), nil
		}
		r := New(s.open, func(Trouble) {})
		h := hold(r, "a", time.Second, time.Second-1)

		time.Sleep(time.Minute)
		h.wantHeld(t)
		r.Remove(&h.Lease)
		wantAtRest(t, r, s)
	})
}

func TestRenewNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		r := New(s.open, func(Trouble) {})
		h := newHolder("a", time.Minute)
		h.RenewNow = true
		term := termOf(time.Hour)

		time.Sleep(time.Nanosecond) // the clocks of a bubble stand still otherwise
		r.Add(&h.Lease, term)
		synctest.Wait()

		if h.renewals() != 1 {
			t.Errorf("renewed %d times at once, want once", h.renewals())
		}

		r.Remove(&h.Lease)
		wantAtRest(t, r, s)
	})
}

// TestOutage: errors are retried, each time over a new session, and an outage
// that ends within the term is survived.
func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(_ context.Context, _ int, renewals []store.Renewal) ([]store.RenewResult, error) {
			if at := time.Since(s.start); at > 5*time.Second && at < 24*time.Second {
				return nil, errDown
			}

			return renewedAll(renewals), nil
		}
		r := New(s.open, func(Trouble) {})
		h := hold(r, "a", 30*time.Second, 10*time.Second)

		time.Sleep(26 * time.Second)
		h.wantHeld(t)

		if h.renewals() == 0 {
			t.Error("not renewed within two seconds of the end of the outage")
		}

		if n := s.count(); n < 10 || n > 100 {
			t.Errorf("%d attempts in an outage of 15 s", n)
		}

		r.Remove(&h.Lease)
		wantAtRest(t, r, s)
	})
}

// TestOutageToTheEnd: the lease is lost at the end of its term, to the
// nanosecond, and says why.
func TestOutageToTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(_ context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
			if n == 0 {
				time.Sleep(time.Second) // the answer's way doesn't lengthen the term

				return renewedAll(renewals), nil
			}

			return nil, errDown
		}
		r := New(s.open, func(Trouble) {})
		h := newHolder("a", 10*time.Second)
		h.RenewNow = true

		time.Sleep(time.Second)
		r.Add(&h.Lease, termOf(30*time.Second))
		wantAtRest(t, r, s)
		h.wantLost(t, 28*time.Second, false, errDown)
	})
}

// TestSilenceToTheEnd: the same with a statement in flight that nobody answers,
// and others that were sent beside it, but not without end.
func TestSilenceToTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(ctx context.Context, _ int, _ []store.Renewal) ([]store.RenewResult, error) { return silent(ctx) }
		r := New(s.open, func(Trouble) {})
		h := hold(r, "a", 30*time.Second, 10*time.Second)

		wantAtRest(t, r, s)
		h.wantLost(t, 27*time.Second, false, nil)

		if s.mostBusy < 2 || s.mostBusy > attemptLimit {
			t.Errorf("%d attempts at once, want 2 to %d", s.mostBusy, attemptLimit)
		}
	})
}

// TestSlowToConnect: a connection that takes longer to open than four attempts are
// waited for, one after the other, is opened nevertheless, and the lease is kept.
func TestSlowToConnect(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		r := New(s.open, func(Trouble) {})

		s.connect = 160 * time.Millisecond

		h := hold(r, "a", 300*time.Millisecond, 75*time.Millisecond)

		time.Sleep(time.Minute)

		if h.losses() > 0 {
			t.Errorf("lost at %s", h.lostAt)
		}

		r.Remove(&h.Lease)
		wantAtRest(t, r, s)
	})
}

// TestSlowerToConnectThanALease: a connection that takes longer to open than a lease runs
// can't save that lease, but those that come after it.
func TestSlowerToConnectThanALease(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		r := New(s.open, func(Trouble) {})

		s.connect = time.Second

		losses := 0
		h := hold(r, "a", 300*time.Millisecond, 75*time.Millisecond)

		for range 600 {
			time.Sleep(100 * time.Millisecond)

			if h.losses() > 0 {
				losses++
				h = hold(r, "a", 300*time.Millisecond, 75*time.Millisecond)
			}
		}

		if losses == 0 || losses > 4 {
			t.Errorf("%d leases of a minute were lost, want those of the first second", losses)
		}

		r.Remove(&h.Lease)
		wantAtRest(t, r, s)
	})
}

// TestSlowerToAnswerThanALease: where answers take longer than a lease runs, no request is
// given up for that, and no connection with it: whoever has to open new ones would be slow
// for good.
func TestSlowerToAnswerThanALease(t *testing.T) {
	t.Parallel()

	for _, pause := range []time.Duration{0, 2 * linger} {
		t.Run(pause.String(), func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				const leases = 200

				s := newServer()

				var givenUp atomic.Int64

				s.answer = func(ctx context.Context, _ int, renewals []store.Renewal) ([]store.RenewResult, error) {
					select {
					case <-time.After(AttemptMin - time.Millisecond):
						return renewedAll(renewals), nil
					case <-ctx.Done():
						givenUp.Add(1)

						return nil, ctx.Err()
					}
				}
				s.connect = AttemptMin / 5 // which is no part of it

				r := New(s.open, func(Trouble) {})

				for n := range leases {
					h := hold(r, "a", 300*time.Millisecond, 75*time.Millisecond)

					time.Sleep(300 * time.Millisecond)

					if h.losses() == 0 {
						t.Errorf("the lease %d was kept, over answers that come after it", n)
					}

					time.Sleep(pause)
				}

				if n := givenUp.Load(); n > 0 {
					t.Errorf("%d requests were given up for %d leases, want none", n, leases)
				}

				wantAtRest(t, r, s)
			})
		})
	}
}

// TestDeafToCancel: nobody answers, with a driver that doesn't return when it is told to.
func TestDeafToCancel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(context.Context, int, []store.Renewal) ([]store.RenewResult, error) {
			time.Sleep(time.Hour)

			return nil, errDown
		}
		r := New(s.open, func(Trouble) {})
		h := hold(r, "a", 30*time.Second, 10*time.Second)

		time.Sleep(27 * time.Second)
		synctest.Wait()
		h.wantLost(t, 27*time.Second, false, nil)
		wantAtRest(t, r, s)
	})
}

// TestSilentConnection: beside an attempt that isn't answered another is sent,
// over another session, early enough.
func TestSilentConnection(t *testing.T) {
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
		h := hold(r, "a", 30*time.Second, 10*time.Second)

		time.Sleep(5 * time.Minute)
		h.wantHeld(t)

		if s.sent()[1].session == s.sent()[0].session {
			t.Error("the second attempt used the session that doesn't answer")
		}

		r.Remove(&h.Lease)
		wantAtRest(t, r, s)
	})
}

// TestLateAnswer: an answer counts even if others were sent for meanwhile, and
// from when its own statement was sent.
func TestLateAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(ctx context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
			if n > 0 {
				return silent(ctx)
			}

			time.Sleep(16 * time.Second)

			return renewedAll(renewals), nil
		}
		r := New(s.open, func(Trouble) {})
		h := hold(r, "a", 30*time.Second, 10*time.Second)

		wantAtRest(t, r, s)

		if h.renewals() != 1 || s.mostBusy < 2 {
			t.Errorf("%d renewals, %d attempts at once: want the late answer to be one, with others beside it",
				h.renewals(), s.mostBusy)
		}

		h.wantLost(t, s.sent()[0].at+27*time.Second, false, nil)
	})
}

// TestAnswersOutOfOrder: the answer to the later statement counts, whichever comes
// last.
func TestAnswersOutOfOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(ctx context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error) {
			switch n {
			case 0:
				time.Sleep(16 * time.Second)
			case 1:
			default:
				return silent(ctx)
			}

			return renewedAll(renewals), nil
		}
		r := New(s.open, func(Trouble) {})
		h := hold(r, "a", 30*time.Second, 10*time.Second)

		wantAtRest(t, r, s)
		h.wantLost(t, s.sent()[1].at+27*time.Second, false, nil)

		if h.renewals() != 1 {
			t.Errorf("%d renewals, want the outrun one not to count", h.renewals())
		}
	})
}

func TestGone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(_ context.Context, _ int, renewals []store.Renewal) ([]store.RenewResult, error) {
			results := renewedAll(renewals)
			for i := range renewals {
				if renewals[i].LockID == "b" {
					results[i] = store.RenewResult{State: store.RenewGone}
				}
			}

			return results, nil
		}
		r := New(s.open, func(Trouble) {})
		a := hold(r, "a", 30*time.Second, 10*time.Second)
		b := hold(r, "b", 30*time.Second, 10*time.Second)

		time.Sleep(time.Minute)
		a.wantHeld(t)

		for _, st := range s.sent() {
			for _, renewal := range st.renewals {
				if renewal.LockID == "b" {
					b.wantLost(t, st.at, true, nil)
				}
			}
		}

		if a.renewals() < 5 {
			t.Errorf("the neighbour of a lost lease was renewed %d times", a.renewals())
		}

		r.Remove(&a.Lease)
		wantAtRest(t, r, s)
	})
}

// TestBusy: a row that somebody has locked is asked for again soon, and is a loss
// only at the end of the term.
func TestBusy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(_ context.Context, _ int, renewals []store.Renewal) ([]store.RenewResult, error) {
			if at := time.Since(s.start); at < 25*time.Second || at > time.Minute {
				return all(renewals, store.RenewBusy), nil
			}

			return renewedAll(renewals), nil
		}
		r := New(s.open, func(Trouble) {})
		h := hold(r, "a", 30*time.Second, 10*time.Second)

		time.Sleep(26500 * time.Millisecond)
		h.wantHeld(t)

		if h.renewals() == 0 {
			t.Error("not renewed within 1.5 s after the row was let go")
		}

		r.Wait()

		if s.opened != 1 {
			t.Errorf("%d sessions: busy is no fault of the session", s.opened)
		}

		if at := h.lostAt; h.losses() != 1 || at < 60*time.Second || at > 87*time.Second {
			t.Errorf("lost %d times, after %s", h.losses(), at)
		}
	})
}

// TestMany: 10,000 leases are kept alive by a handful of statements a second, each
// of a bounded size.
func TestMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(_ context.Context, _ int, renewals []store.Renewal) ([]store.RenewResult, error) {
			time.Sleep(10 * time.Millisecond)

			return renewedAll(renewals), nil
		}
		r := New(s.open, func(Trouble) {})

		holders := make([]*holder, 10_000)
		for i := range holders {
			holders[i] = hold(r, fmt.Sprint(i), 30*time.Second, 10*time.Second)

			if i%1000 == 0 {
				time.Sleep(time.Second)
			}
		}

		const length = time.Minute

		before := s.count()

		time.Sleep(length)

		statements := s.count() - before

		// By waiting, all of them fall due over and over.
		for _, h := range holders {
			h.wantHeld(t)

			if h.renewals() < 6 {
				t.Errorf("%s was renewed %d times in %s", h.LockID, h.renewals(), length)
			}
		}

		if perSecond := statements / int(length/time.Second); perSecond > 5 {
			t.Errorf("%d statements in %s", statements, length)
		}

		for _, st := range s.sent() {
			if len(st.renewals) > batchLimit {
				t.Errorf("%d renewals in one statement", len(st.renewals))
			}
		}

		for _, h := range holders {
			r.Remove(&h.Lease)
		}

		wantAtRest(t, r, s)
	})
}

// TestBatchLimit: what doesn't fit into one statement follows in the next.
func TestBatchLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		r := New(s.open, func(Trouble) {})

		term := termOf(3 * time.Hour)
		holders := make([]*holder, 2*batchLimit+500)

		time.Sleep(time.Nanosecond) // the clocks of a bubble stand still otherwise

		for i := range holders {
			holders[i] = newHolder(fmt.Sprint(i), time.Hour)
			holders[i].RenewNow = true
			r.Add(&holders[i].Lease, term)
		}

		synctest.Wait()

		renewed := 0
		for _, st := range s.sent() {
			renewed += len(st.renewals)

			if len(st.renewals) > batchLimit {
				t.Errorf("%d renewals in one statement", len(st.renewals))
			}
		}

		if renewed != len(holders) || s.mostBusy != 1 {
			t.Errorf("%d renewals of %d leases, %d at once", renewed, len(holders), s.mostBusy)
		}

		for _, h := range holders {
			if h.renewals() != 1 {
				t.Errorf("%s was renewed %d times", h.LockID, h.renewals())
			}

			r.Remove(&h.Lease)
		}

		wantAtRest(t, r, s)
	})
}

// TestAtRest: when nothing is held there is no goroutine and no session, and a new
// lease starts it all again. The bubble fails the test if a goroutine stays.
func TestAtRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		r := New(s.open, func(Trouble) {})

		for round := 1; round <= 3; round++ {
			h := hold(r, "a", 30*time.Second, 10*time.Second)

			time.Sleep(time.Minute)
			r.Remove(&h.Lease)
			wantAtRest(t, r, s)

			if s.opened != round {
				t.Errorf("%d sessions in round %d", s.opened, round)
			}

			h.wantHeld(t)

			count := s.count()

			time.Sleep(time.Hour)

			if s.count() != count {
				t.Error("statements are sent for nothing")
			}
		}
	})
}

// TestRemoveInFlight: a lease that was removed isn't reported on any more, and
// what is in flight for it is cancelled.
func TestRemoveInFlight(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.answer = func(ctx context.Context, _ int, renewals []store.Renewal) ([]store.RenewResult, error) {
			_, _ = silent(ctx)

			return all(renewals, store.RenewGone), nil
		}
		r := New(s.open, func(Trouble) {})
		h := hold(r, "a", 30*time.Second, 10*time.Second)

		time.Sleep(11 * time.Second)
		r.Remove(&h.Lease)
		wantAtRest(t, r, s)

		if at := time.Since(s.start); at != 11*time.Second {
			t.Errorf("at rest after %s, want at once", at)
		}

		h.wantHeld(t)

		if h.renewals() != 0 {
			t.Error("renewed after it was removed")
		}
	})
}
