package waitqueue

import (
	"math"
	"math/rand/v2"
	"time"
)

const (
	// crowdFrom is how many other processes, seen to have the lock, are no crowd yet.
	crowdFrom = 5
	// crowdSeen is how many owners a process remembers. So it estimates a crowd at 496 at most.
	crowdSeen = 32
	// crowdAsks is how many of a crowd would ask at a release if all had just won.
	crowdAsks = 4
	// crowdPoliteness is the start that it gives to others, for each round that it has waited for less than a turn of
	// all.
	crowdPoliteness = politeness / 30
	// askEvery is how long after its last answer a process lets no release pass.
	askEvery = time.Minute
	// fallBackMax is how long after a release that it lets pass a process asks at the latest. Its mark counts for
	// longer.
	fallBackMax = 5 * time.Second
	// fallBackApart is how far apart those of a crowd then ask, on average.
	fallBackApart = 20 * time.Millisecond

	// crowdFor is how long a process remembers a crowd after its last waiter has left: the next one shouldn't have to
	// learn of it again.
	crowdFor = time.Minute
)

// crowd is what a process knows of the others that wait for a lock, where those are many. Then it lets most
// releases pass. If nobody asks, those who let it pass do so later, one after the other (fallBack).
type crowd struct {
	// owners are the other processes that were seen to have the lock, the latest last, each as often as it was.
	owners []string
	// seen: one of them since the last release. asked is when.
	seen  bool
	asked time.Time
	// heard is when the last release was heard of, and between the moving mean of the time between two.
	heard   time.Time
	between time.Duration
	// passed: this process let the last release pass.
	passed bool
}

// keptFor is for how long it is kept without waiters. Releases aren't heard of then.
func (c *crowd) keptFor() time.Duration {
	c.heard = time.Time{}

	if len(c.owners) <= crowdFrom/2 {
		return 0
	}

	return crowdFor
}

// size estimates how many other processes wait, by how often the same were seen, as with birthdays. It is 0 if
// they are few. It doesn't depend on how often this process wins. So those that win more don't ask more.
func (c *crowd) size() float64 {
	if len(c.owners) <= crowdFrom {
		return 0
	}

	var (
		times = make(map[string]int, len(c.owners))
		equal int // pairs
	)

	for _, owner := range c.owners {
		equal += times[owner]
		times[owner]++
	}

	if len(times) <= crowdFrom {
		return 0
	}

	n := float64(len(c.owners))

	return n * (n - 1) / 2 / float64(max(equal, 1))
}

// saw notes an owner, one after each release.
func (c *crowd) saw(owner string) {
	c.asked = time.Now()

	if c.seen {
		return
	}

	c.seen = true
	c.owners = append(c.owners, owner)
	c.owners = c.owners[max(len(c.owners)-crowdSeen, 0):]
}

// released notes a release that was heard of.
func (c *crowd) released() {
	now := time.Now()

	if between := now.Sub(c.heard); c.heard.IsZero() {
		// It is the first.
	} else if c.between == 0 {
		c.between = between
	} else {
		c.between += (between - c.between) / 8
	}

	c.heard, c.seen = now, false
}

// passes decides whether this process lets a release pass, given how many others wait, and for how many rounds it
// has waited.
func (c *crowd) passes(n float64, rounds int) bool {
	chance := crowdAsks / n * math.Exp2(float64(rounds)/n)
	c.passed = c.between > 0 && time.Since(c.asked) < askEvery && rand.Float64() >= chance

	return c.passed
}

// crowdStart is the start that a process gives to those of a crowd that have waited for longer, when it asks. Without
// it, those that the server notifies first would win again and again.
func crowdStart(n float64, rounds int) time.Duration {
	return time.Duration(max(n-float64(rounds), 0) * float64(crowdPoliteness))
}

// fallBack is how long after a release that it lets pass a process asks, if it hears of no other. By then
// another would have been heard of, mostly. It comes no later than the end of a lease like this process's.
func (c *crowd) fallBack(n float64, ttl time.Duration) time.Duration {
	longest := min(fallBackMax, ttl)
	from := min(2*c.between, longest/5*4)

	return from + rand.N(min(time.Duration(n*float64(fallBackApart)), longest-from)+1)
}

// won notes that this process won. If nobody asked for a release that it let pass, there is no crowd any more.
func (c *crowd) won() {
	if c.passed {
		c.owners = nil
	}

	c.seen, c.passed = false, false
}
