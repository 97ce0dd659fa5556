package store

import (
	"sync"
	"time"
)

// counter counts what is under way. Unlike a sync.WaitGroup it may be waited for
// while it is being counted up from zero.
type counter struct {
	// mu guards what follows.
	mu sync.Mutex
	n  int
	// zero is closed when n is zero again; nil while nobody waits.
	zero chan struct{}
}

func (c *counter) add() {
	c.mu.Lock()
	defer c.mu.Unlock()

	c.n++
}

func (c *counter) done() {
	c.mu.Lock()
	defer c.mu.Unlock()

	c.n--
	if c.n == 0 && c.zero != nil {
		close(c.zero)
		c.zero = nil
	}
}

// waitFor returns when nothing is under way, or after d, and how much is.
func (c *counter) waitFor(d time.Duration) (left int) {
	c.mu.Lock()

	if c.n == 0 {
		c.mu.Unlock()

		return 0
	}

	if c.zero == nil {
		c.zero = make(chan struct{})
	}

	zero := c.zero
	c.mu.Unlock()

	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case <-zero:
		return 0
	case <-timer.C:
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	return c.n
}
