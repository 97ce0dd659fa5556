package pglocker

import (
	"context"
	"errors"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
)

// TestBackoff: pauses double up to the longest, and begin again after a long term.
func TestBackoff(t *testing.T) {
	t.Parallel()

	b := backoff{shortest: 300 * time.Millisecond, longest: 2 * time.Second}

	for i, want := range []time.Duration{300 * time.Millisecond, 600 * time.Millisecond, 1200 * time.Millisecond, 2 * time.Second, 2 * time.Second} {
		if got := b.next(-1); got != want {
			t.Errorf("pause %d is %s, want %s", i, got, want)
		}
	}

	if got := b.next(b.longest - 1); got != b.longest {
		t.Errorf("after a short term the pause is %s", got)
	}

	if got := b.next(b.longest); got != b.shortest {
		t.Errorf("after a long term the pause is %s", got)
	}

	for b := (backoff{shortest: 1, longest: math.MaxInt64}); b.failures < 200; {
		if got := b.next(0); got <= 0 {
			t.Fatalf("pause %d is %s", b.failures, got)
		}
	}
}

// nobody needs to hear of a lease.
type nobody struct{ keepalive.Holder }

func (nobody) Lost(keepalive.Loss) {}

// cutOff is a session that can't be opened.
type cutOff struct{ keepalive.Session }

func (cutOff) Connect(context.Context) error { return errors.New("cut off") }
func (cutOff) Close()                        {}

// TestIsLeaderHasADeadline: without renewals IsLeader says yes to the end of the term, and not a moment longer,
// even if nobody has cancelled the term's context yet.
func TestIsLeaderHasADeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const (
			ttl    = 10 * time.Second
			margin = time.Second
		)

		l := &Locker{renewer: keepalive.New(func() keepalive.Session { return cutOff{} }, func(keepalive.Trouble) {})}
		lock := &Lock{lease: keepalive.Lease{Interval: ttl / 3, Holder: nobody{}}}
		e := &Election{locker: l}

		l.renewer.Add(&lock.lease, keepalive.Term{Sent: time.Now(), TTL: ttl, Margin: margin})
		e.leading.Store(&leadership{lock, t.Context()})
		time.Sleep(ttl - margin - 1)

		if err := e.IsLeader(t.Context()); err != nil {
			t.Errorf("IsLeader before the end of the term: %v", err)
		}

		time.Sleep(time.Nanosecond)

		if err := e.IsLeader(t.Context()); !errors.Is(err, ErrNotLeader) {
			t.Errorf("IsLeader at the end of the term: %v, want ErrNotLeader", err)
		}

		l.renewer.Wait()
	})
}

// TestSightings: what an observer yields for the rows that it finds.
func TestSightings(t *testing.T) {
	t.Parallel()

	now := time.Now()
	held := func(token int64, owner string) store.Row {
		return store.Row{Generation: token, Owner: owner, Now: now, ExpiresAt: now.Add(time.Second)}
	}
	over := func(token int64, owner string) store.Row {
		return store.Row{Generation: token, Owner: owner, Now: now, ExpiresAt: now}
	}

	for name, test := range map[string]struct {
		rows   []store.Row
		log    []int64
		tokens []int64 // 0 for a vacancy
	}{
		"no row":                         {[]store.Row{{}, {}, held(2, "a")}, nil, []int64{0, 2}},
		"a term goes on":                 {[]store.Row{held(2, "a"), held(2, "a")}, []int64{2}, []int64{2}},
		"released":                       {[]store.Row{held(2, "a"), over(3, ""), over(3, ""), held(4, "b")}, []int64{2, 4}, []int64{2, 0, 4}},
		"handed over":                    {[]store.Row{held(2, "a"), held(3, "b")}, []int64{2, 3}, []int64{2, 3}},
		"ended, then released":           {[]store.Row{held(2, "a"), over(2, "a"), over(3, "")}, []int64{2}, []int64{2, 0}},
		"ended, then granted":            {[]store.Row{held(2, "a"), over(2, "a"), held(3, "b")}, []int64{2, 3}, []int64{2, 0, 3}},
		"begun and ended between looks":  {[]store.Row{held(2, "a"), over(3, "b")}, []int64{2}, []int64{2, 3, 0}},
		"the same from a vacancy on":     {[]store.Row{over(1, ""), over(3, "b"), over(3, "b")}, nil, []int64{0, 3, 0}},
		"begins after an end":            {[]store.Row{over(3, "b"), over(3, "b"), held(4, "a")}, []int64{3, 4}, []int64{0, 4}},
		"a crash undoes a release":       {[]store.Row{held(2, "a"), over(3, ""), held(2, "a"), over(2, "a"), held(3, "b")}, []int64{2}, []int64{2, 0, 3}},
		"the same for a new observer":    {[]store.Row{over(3, ""), held(2, "a"), held(3, "b")}, []int64{2}, []int64{0, 3}},
		"three columns":                  {[]store.Row{held(2, ""), over(2, ""), over(3, ""), held(4, "")}, []int64{2, 4}, []int64{2, 0, 4}},
		"three columns from an end on":   {[]store.Row{over(2, ""), over(3, ""), held(4, "")}, []int64{2, 4}, []int64{0, 4}},
		"a failover to an older primary": {[]store.Row{held(5, "a"), held(3, "b"), held(9, "c")}, nil, []int64{5, 9}},
		"terms between looks":            {[]store.Row{held(2, "a"), held(9, "a")}, []int64{2, 3, 5, 7}, []int64{2, 3, 5, 7, 9}},
		"terms from a vacancy on":        {[]store.Row{{}, over(7, "")}, []int64{2, 4, 6}, []int64{0, 2, 4, 6, 0}},
		"terms before the beginning":     {[]store.Row{over(7, ""), over(9, "")}, []int64{2, 4, 6, 8}, []int64{0, 8, 0}},
		"more than the log keeps":        {[]store.Row{held(2, "a"), held(101, "a")}, []int64{2, 60, 70}, []int64{2, 70, 101}},
	} {
		var (
			s   sighting
			got []int64
		)

		for _, row := range test.rows {
			var missed []Term

			for token, last := s.unseen(row); token <= last; token++ {
				if slices.Contains(test.log, token) {
					missed = append(missed, Term{Token: token})
				}
			}

			for _, term := range s.terms(row, missed) {
				got = append(got, term.Token)
			}
		}

		if !slices.Equal(got, test.tokens) {
			t.Errorf("%s: %v, want %v", name, got, test.tokens)
		}
	}
}

// TestHealth: a check that fails, or hangs, ends the health of before at once. Another begins with the next
// success. No two checks run at once, and none is left behind.
func TestHealth(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const interval = time.Second

		var (
			broken  = errors.New("broken")
			results = make(chan error)
			running int
			told    []error
		)

		h := &health{
			interval: interval,
			failed:   func(err error) { told = append(told, err) },
			check: func(ctx context.Context) error {
				if running++; running > 1 {
					t.Error("two checks run at once")
				}
				defer func() { running-- }()

				select {
				case err := <-results:
					return err
				case <-ctx.Done(): // it goes on for a while
					return <-results
				}
			},
		}

		ctx, stop := context.WithCancel(t.Context())
		h.start(ctx)

		answer := func(err error) {
			results <- err

			synctest.Wait()
		}

		found := make(chan context.Context, 1)
		go func() { found <- h.healthy(ctx) }()

		answer(broken)

		select {
		case <-found:
			t.Fatal("healthy without a check that succeeded")
		default:
		}

		time.Sleep(interval)
		answer(nil)

		first := <-found
		if first.Err() != nil || len(told) != 1 {
			t.Fatalf("healthy: %v, told of %v", first.Err(), told)
		}

		time.Sleep(interval)
		answer(nil)

		if h.healthy(ctx) != first {
			t.Error("another success began another time of health")
		}

		time.Sleep(interval) // the next check begins
		synctest.Wait()
		time.Sleep(interval - 1)

		if first.Err() != nil {
			t.Error("a check is late before its interval has passed")
		}

		time.Sleep(time.Nanosecond)
		synctest.Wait()

		if cause := context.Cause(first); !errors.Is(cause, ErrUnhealthy) || len(told) != 2 {
			t.Errorf("a check that hangs ended it for %v, told of %v", cause, told)
		}

		answer(nil) // too late, and the next check begins

		go func() { found <- h.healthy(ctx) }()

		answer(nil)

		second := <-found
		time.Sleep(interval)
		answer(broken)

		if cause := context.Cause(second); !errors.Is(cause, ErrUnhealthy) || !errors.Is(cause, broken) || len(told) != 3 {
			t.Errorf("a check that failed ended it for %v, told of %v", cause, told)
		}

		stop()

		if h.healthy(ctx) != nil {
			t.Error("healthy after the end")
		}

		synctest.Wait()

		for running > 0 {
			answer(broken)
		}

		h.wait()

		if len(told) != 3 {
			t.Errorf("told of %v after the end", told)
		}
	})
}
