package waitqueue

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// process is one of a crowd in a simulation.
type process struct {
	name   string
	queue  *Queue
	place  *Waiter
	asksAt time.Time // by itself
	turn   float64   // by which those are ordered that ask at the same time
	waits  int
}

const simulatedTTL = time.Minute

// simulation is of processes that wait for one lock, with a clock that stands still while they ask. Each holds
// the lock for a while, and then waits again.
type simulation struct {
	hold      time.Duration
	bias      float64 // by how much the first processes are faster
	processes []*process
	holder    *process // nil if the lock is free

	free   []time.Duration // how long the lock was, in each round
	asks   []int           // how many asked, in each round, when it was released and until it was granted
	waited int             // for how many rounds one has waited at most
}

func simulate(n int, hold time.Duration, bias float64) *simulation {
	s := &simulation{hold: hold, bias: bias}

	for i := range n {
		p := &process{name: fmt.Sprint(i), queue: New()}
		s.processes = append(s.processes, p)
		s.join(p)
	}

	return s
}

func (s *simulation) join(p *process) {
	p.place, p.waits, p.asksAt = p.queue.Join("a", simulatedTTL), 0, time.Time{}
	s.settle()
}

// settle has all processes ask that do so now, at random, but the first ones mostly first. A process that asks and is
// refused sleeps for four to eight seconds.
func (s *simulation) settle() (asked int) {
	for i, p := range s.processes {
		p.turn = s.bias*float64(i)/float64(len(s.processes)) + rand.Float64()
	}

	order := slices.Clone(s.processes)
	slices.SortFunc(order, func(a, b *process) int { return cmp.Compare(a.turn, b.turn) })

	for _, p := range order {
		if p.place == nil {
			continue
		}

		asks := false

		select {
		case <-p.place.Hinted():
			if at := p.place.AskAt(); !at.IsZero() && (at.Before(p.asksAt) || p.asksAt.IsZero() || p.place.Later()) {
				p.asksAt = at
			}
		default:
		}

		select {
		case <-p.place.Woken():
			asks = true
		default:
			asks = !p.asksAt.IsZero() && !time.Now().Before(p.asksAt)
		}

		if !asks {
			continue
		}

		asked++

		if s.holder == nil {
			s.holder = p
			p.queue.Won("a")
			p.place.Leave()
			p.place = nil

			s.waited = max(s.waited, p.waits)

			continue
		}

		p.queue.Lost("a", s.holder.name)
		p.asksAt = time.Now().Add(4*time.Second + rand.N(4*time.Second))
		p.place.SleepUntil(p.asksAt)
	}

	return asked
}

// round is one tenure: it is released, and granted to another.
func (s *simulation) round() {
	asked := s.wait(s.hold, false)

	last := s.holder
	s.holder = nil

	for _, p := range s.processes {
		if p.place != nil {
			p.waits++
			p.queue.Released("a")
		}
	}

	released := time.Now()

	asked += s.settle()
	if s.holder == nil {
		asked += s.wait(time.Hour, true)
	}

	s.free = append(s.free, time.Since(released))
	s.asks = append(s.asks, asked)

	if last != nil {
		s.join(last)
	}
}

// wait lets time pass, to the moment of the next that asks, and returns how many do.
func (s *simulation) wait(d time.Duration, untilGranted bool) (asked int) {
	for end := time.Now().Add(d); ; {
		next := end
		for _, p := range s.processes {
			if p.place != nil && !p.asksAt.IsZero() && p.asksAt.Before(next) {
				next = p.asksAt
			}
		}

		time.Sleep(time.Until(next))

		asked += s.settle()
		if !time.Now().Before(end) || untilGranted && s.holder != nil {
			return asked
		}
	}
}

// leave has all processes but the first few leave, and one of them release the lock.
func (s *simulation) leave(left int) {
	for _, p := range s.processes[left:] {
		if p.place != nil {
			p.place.Leave()
			p.place = nil
		}
	}

	s.processes = s.processes[:left]
}

// sum is the sum of what was counted in the rounds from the given one on.
func sum[T int | time.Duration](of []T, from int) (sum T) {
	for _, n := range of[from:] {
		sum += n
	}

	return sum
}

// TestCrowd: in a crowd few ask at a release, the lock is hardly ever left free, and each process has its turn.
// Few processes all ask.
func TestCrowd(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		processes, rounds int
		bias              float64
		least, most       float64 // that ask in a round, on average, once they know each other
	}{
		{processes: 2, rounds: 50, least: 1, most: 1},
		{processes: 6, rounds: 100, least: 4.5, most: 5.5},
		{processes: 9, rounds: 1000, least: 3, most: 6.5},
		{processes: 12, rounds: 1000, least: 3, most: 11},
		{processes: 40, rounds: 1000, least: 3, most: 15},
		{processes: 200, rounds: 1300, bias: 1, least: 3, most: 20},
		{processes: 200, rounds: 700, bias: 4, least: 3, most: 80}, // mostly below 20: they learn late
	} {
		t.Run(fmt.Sprint(test.processes, " processes, bias ", test.bias), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := simulate(test.processes, time.Second, test.bias)
				learnt := 2 * test.processes

				for range test.rounds {
					s.round()
				}

				if asks := float64(sum(s.asks, learnt)) / float64(test.rounds-learnt); asks < test.least || asks > test.most {
					t.Errorf("%.1f processes ask in a round, want %g to %g", asks, test.least, test.most)
				}

				// The first of a crowd falls back after two tenures, and soon after the second. At most a hundredth
				// of the rounds come to that.
				if free := sum(s.free, 0) / time.Duration(test.rounds); free > 25*time.Millisecond {
					t.Errorf("the lock is free for %s in each round", free)
				}

				if longest := slices.Max(s.free); longest > fallBackMax {
					t.Errorf("the lock was free for %s", longest)
				}

				for _, p := range s.processes {
					s.waited = max(s.waited, p.waits)
				}

				// In forty runs the longest wait of 40 processes was 275 turns, and 160 in the middle.
				if s.waited > 12*max(test.processes, 8) {
					t.Errorf("a process waited for %d turns of others", s.waited)
				}
			})
		})
	}
}

// TestCrowdGoes: those that are left of a crowd let the lock be free for five seconds at most each time, and a few
// times only. Each has its turn again soon.
func TestCrowdGoes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const crowd, left = 200, 3

		s := simulate(crowd, time.Second, 0)
		for range 2 * crowd {
			s.round()
		}

		for s.holder == nil || slices.Index(s.processes, s.holder) >= left {
			s.round()
		}

		s.leave(left)

		for _, p := range s.processes {
			p.waits = 0
		}

		s.waited = 0
		before := len(s.free)

		for range 5 * crowd {
			s.round()
		}

		if longest := slices.Max(s.free[before:]); longest > fallBackMax {
			t.Errorf("the lock was free for %s", longest)
		}

		if free := sum(s.free, before); free > 10*fallBackMax {
			t.Errorf("the lock was free for %s", free)
		}

		for _, p := range s.processes {
			s.waited = max(s.waited, p.waits)
		}

		if s.waited > 3*crowd {
			t.Errorf("a process waited for %d turns of others", s.waited)
		}
	})
}

// TestForgedReleases: however many notifications a process of a crowd hears, it asks within a minute, and if it
// hears none, within five seconds or the TTL.
func TestForgedReleases(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New()
		w := q.Join("a", time.Minute)
		<-w.Woken()

		know := func() {
			for i := range crowdSeen {
				q.Lost("a", fmt.Sprint(i))
				q.with("a", func(l *line) { l.turns.crowd.seen = false })
			}

			q.with("a", func(l *line) { l.turns.won = l.turns.round })
		}

		passed := 0

		for range 100 {
			know()

			for began := time.Now(); ; passed++ {
				q.Released("a")

				if len(w.wake) > 0 || !w.later {
					break
				}

				if d := time.Until(w.AskAt()); d > fallBackMax {
					t.Fatalf("it would ask in %s", d)
				}

				if time.Since(began) > askEvery {
					t.Fatal("it hasn't asked for a minute")
				}

				w.later = false

				time.Sleep(time.Second)
			}

			select {
			case <-w.Woken():
			default:
			}

			time.Sleep(time.Second)
		}

		if passed < 1000 {
			t.Errorf("it let %d releases pass", passed)
		}

		for _, ttl := range []time.Duration{1, time.Millisecond, time.Second} {
			c := crowd{between: time.Hour}
			if d := c.fallBack(500, ttl); d > ttl {
				t.Errorf("with a TTL of %s it asks in %s", ttl, d)
			}
		}
	})
}

// TestOneOwnerARelease: an owner that is seen twice in one tenure counts once.
func TestOneOwnerARelease(t *testing.T) {
	t.Parallel()

	q := New()
	q.Join("a", time.Minute)

	for range 2 {
		q.Lost("a", "x")
		q.Lost("a", "x")
		q.Released("a")
	}

	if owners := q.lines["a"].turns.crowd.owners; len(owners) != 2 {
		t.Errorf("%d owners are remembered, want 2", len(owners))
	}
}

// TestFallBackApart: those of a crowd that let a release pass don't ask all at once.
func TestFallBackApart(t *testing.T) {
	t.Parallel()

	c := crowd{between: time.Second}
	first, last := time.Hour, time.Duration(0)

	for range 200 {
		d := c.fallBack(200, time.Minute)
		first, last = min(first, d), max(last, d)
	}

	if first < 2*time.Second || first > 2200*time.Millisecond || last < 4*time.Second {
		t.Errorf("200 processes ask %s to %s after a release", first, last)
	}
}

// TestPutOff: a process that lets a release pass doesn't ask at the times that it had from before.
func TestPutOff(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New()
		w := q.Join("a", time.Minute)
		at := func(d time.Duration) time.Time { return time.Now().Add(d) }

		w.SleepUntil(at(time.Second))
		w.wakeAt(at(time.Millisecond))
		w.putOff(at(3 * time.Second))

		if got := w.AskAt(); got != at(3*time.Second) || !w.Later() || w.Later() {
			t.Errorf("put off, it asks in %s", time.Until(got))
		}

		// What it is answered meanwhile counts too.
		w.putOff(at(3 * time.Second))
		w.SleepUntil(at(time.Second))

		if got := w.AskAt(); got != at(3*time.Second) || w.Later() {
			t.Errorf("with an answer since, it doesn't ask before %s", time.Until(got))
		}

		w.putOff(at(3 * time.Second))
		w.wakeAt(at(time.Millisecond))

		if got := w.AskAt(); got != at(time.Millisecond) {
			t.Errorf("told of another time since, it asks in %s", time.Until(got))
		}
	})
}

// TestCrowdIsRemembered: a process remembers a crowd for a minute after its last waiter has left.
func TestCrowdIsRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := New()
		w := q.Join("a", time.Minute)

		for i := range crowdSeen {
			q.Lost("a", fmt.Sprint(i))
			q.with("a", func(l *line) { l.turns.crowd.seen = false })
		}

		w.Leave()

		known := func() bool {
			w := q.Join("a", time.Minute)
			defer w.Leave()

			return q.lines["a"].turns.crowd.size() > 0
		}

		time.Sleep(crowdFor / 2)

		if !known() {
			t.Error("a crowd was forgotten")
		}

		time.Sleep(crowdFor)

		if known() {
			t.Error("a crowd is remembered for longer than a minute")
		}
	})
}
