package store

import "sync"

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

// wait returns when nothing is under way.
func (c *counter) wait() {
	c.mu.Lock()

	if c.n == 0 {
		c.mu.Unlock()

		return
	}

	if c.zero == nil {
		c.zero = make(chan struct{})
	}

	zero := c.zero
	c.mu.Unlock()

	<-zero
}
