package keepalive

import (
	"testing"
	"time"
	"unsafe"
)

// clocks returns a reading of both clocks, monotonic and wall, that have moved by
// different amounts since t was read. No function of the package time makes one:
// a machine that sleeps does, and an administrator who sets the clock.
func clocks(t *testing.T, since time.Time, monotonic, wall time.Duration) time.Time {
	t.Helper()

	now := since.Add(wall)
	// The second word of a time that has a monotonic reading is that reading.
	*(*int64)(unsafe.Add(unsafe.Pointer(&now), 8)) += int64(monotonic - wall)

	if now.Sub(since) != monotonic || now.Round(0).Sub(since.Round(0)) != wall {
		t.Fatal("time.Time has another layout than this test assumes")
	}

	return now
}

func TestTermLeft(t *testing.T) {
	t.Parallel()

	const (
		ttl    = 10 * time.Second
		margin = time.Second
	)

	term := Term{Sent: time.Now(), TTL: ttl, Margin: margin}

	for _, test := range []struct {
		name            string
		monotonic, wall time.Duration
		left            time.Duration
	}{
		{"as it is sent", 0, 0, 9 * time.Second},
		{"later", 4 * time.Second, 4 * time.Second, 5 * time.Second},
		{"a nanosecond before the end", 9*time.Second - 1, 9*time.Second - 1, 1},
		{"at the end", 9 * time.Second, 9 * time.Second, 0},
		{"after the end", time.Minute, time.Minute, -51 * time.Second},
		{"the machine slept", time.Second, time.Hour, 9*time.Second - time.Hour},
		{"the wall clock was set forward a little", 4 * time.Second, 5 * time.Second, 4 * time.Second},
		{"the wall clock was set back", 4 * time.Second, -time.Hour, 5 * time.Second},
		{"the wall clock was set back, and the term is over", 10 * time.Second, 0, -time.Second},
	} {
		now := clocks(t, term.Sent, test.monotonic, test.wall)

		if left := term.Left(now); left != test.left {
			t.Errorf("%s: Left is %s, want %s", test.name, left, test.left)
		}

		if left := term.LeaseLeft(now); left != test.left+margin {
			t.Errorf("%s: LeaseLeft is %s, want %s", test.name, left, test.left+margin)
		}
	}
}

// TestInterval: renewals come when they are wanted or earlier, and always early
// enough to be repeated within the term.
func TestInterval(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		ttl, margin, asked, longest time.Duration
	}{
		{30 * time.Second, time.Second, 10 * time.Second, 10 * time.Second},
		{3 * time.Second, 300 * time.Millisecond, time.Second, time.Second},
		{3 * time.Second, 300 * time.Millisecond, 3*time.Second - 1, 1800 * time.Millisecond},
		{time.Hour, time.Second, time.Hour - 1, 2399333333333},
		{time.Millisecond, 100 * time.Microsecond, time.Nanosecond, time.Microsecond},
	} {
		l := &Lease{Interval: test.asked, term: Term{TTL: test.ttl, Margin: test.margin}}

		for range 1000 {
			if got := l.interval(); got > test.longest || got < test.longest*9/10 {
				t.Fatalf("TTL %s, asked for every %s: interval %s, want %s to a tenth less",
					test.ttl, test.asked, got, test.longest)
			}
		}
	}
}

// TestRetryDelay: pauses grow, and stay so short that an outage which ends within
// the term is noticed within it.
func TestRetryDelay(t *testing.T) {
	t.Parallel()

	for _, ttl := range []time.Duration{time.Millisecond, 100 * time.Millisecond, 3 * time.Second, time.Hour} {
		l := &Lease{term: Term{TTL: ttl, Margin: min(ttl/10, time.Second)}}

		for l.failures = range 100 {
			delay := l.retryDelay()
			if delay <= 0 || delay > max(ttl/20, time.Millisecond) || delay > time.Second {
				t.Fatalf("TTL %s: the pause after failure %d is %s", ttl, l.failures, delay)
			}
		}
	}
}

// TestPatience: an attempt gets a quarter of what is left of the term, and no less than a
// twentieth of the whole. A lease that waits for others gets no more, and is in less of a hurry
// than 50 ms only if its patience is.
func TestPatience(t *testing.T) {
	t.Parallel()

	for _, test := range []struct{ ttl, elapsed, patience, hurry time.Duration }{
		{44 * time.Second, 0, 10 * time.Second, 10 * time.Second},
		{44 * time.Second, 20 * time.Second, 5 * time.Second, 5 * time.Second},
		{44 * time.Second, 36 * time.Second, 2 * time.Second, time.Second},
		{44 * time.Second, 40 * time.Second, 2 * time.Second, 50 * time.Millisecond},
		{44 * time.Second, 44 * time.Second, 2 * time.Second, 50 * time.Millisecond},
		{440 * time.Millisecond, 360 * time.Millisecond, 20 * time.Millisecond, 20 * time.Millisecond},
	} {
		term := Term{Sent: time.Now(), TTL: test.ttl, Margin: test.ttl / 11}
		now := term.Sent.Add(test.elapsed)

		if got := term.patience(now); got != test.patience {
			t.Errorf("TTL %s, after %s: the patience is %s, want %s", test.ttl, test.elapsed, got, test.patience)
		}

		if got := term.hurry(now); got != test.hurry {
			t.Errorf("TTL %s, after %s: the hurry is %s, want %s", test.ttl, test.elapsed, got, test.hurry)
		}
	}
}
