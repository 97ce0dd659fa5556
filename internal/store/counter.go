package store

import (
	"sync"
	"time"
)

// counter counts goroutines. Unlike a sync.WaitGroup it may be waited for while it counts up from
// zero, and for a limited time.
type counter struct {
	// mu guards what follows.
	mu sync.Mutex
	n  int
	// zero is closed when n is zero again. It is nil while nobody waits.
	zero chan struct{}
}

// start runs run on a goroutine of its own.
func (c *counter) start(run func()) {
	c.mu.Lock()
	c.n++
	c.mu.Unlock()

	go func() {
		defer func() {
			c.mu.Lock()
			defer c.mu.Unlock()

			c.n--
			if c.n == 0 && c.zero != nil {
				close(c.zero)
				c.zero = nil
			}
		}()

		run()
	}()
}

// waitFor returns when nothing is under way, or after d, and how much is.
func (c *counter) waitFor(d time.Duration) (left int) {
	c.mu.Lock()
	zero, n := c.zero, c.n

	if n > 0 && zero == nil {
		zero = make(chan struct{})
		c.zero = zero
	}
	c.mu.Unlock()

	if n == 0 {
		return 0
	}

	select {
	case <-zero:
		return 0
	case <-time.After(d):
		c.mu.Lock()
		defer c.mu.Unlock()

		return c.n
	}
}
