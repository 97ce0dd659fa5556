package pglocker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/pause"
)

// health runs the health check of one [Election.Run], on goroutines of its own.
//
//	state      means                              moved by
//	unknown    no check has returned yet          start
//	healthy    the last check succeeded           checked(nil)
//	unhealthy  the last failed, or hangs          checked(an error)
//
// Each time in the state healthy has a context, which ends with it.
type health struct {
	interval time.Duration
	check    func(context.Context) error
	// failed is told of each change to unhealthy.
	failed func(error)

	goroutines sync.WaitGroup

	// mu guards what follows.
	mu sync.Mutex
	// ctx is that of the present time in the state healthy, nil in the others.
	ctx context.Context
	end context.CancelCauseFunc
	// passed is closed when the state becomes healthy. The next change makes another.
	passed chan struct{}
	// down: the last check has failed.
	down bool
}

// start begins the checks, until ctx ends. The caller then calls wait.
func (h *health) start(ctx context.Context) {
	h.passed = make(chan struct{})

	if h.check == nil {
		h.ctx = ctx
		close(h.passed)

		return
	}

	h.goroutines.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			h.checkOnce(ctx)
			pause.Sleep(ctx, h.interval-time.Since(began))
		}
	})
}

func (h *health) wait() { h.goroutines.Wait() }

// checkOnce makes one check. One that hangs counts as failed after the interval, and is waited for.
func (h *health) checkOnce(ctx context.Context) {
	attempt, cancel := context.WithTimeout(ctx, h.interval)
	defer cancel()

	returned := make(chan error, 1)

	h.goroutines.Go(func() { returned <- h.check(attempt) })

	late := time.NewTimer(h.interval)
	defer late.Stop()

	select {
	case err := <-returned:
		h.checked(ctx, err)
	case <-late.C:
		h.checked(ctx, fmt.Errorf("it has not returned for %s", h.interval))
		<-returned
	}
}

// checked moves the state. Each time of health has a context made from ctx, that of Run.
func (h *health) checked(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return // the check was told to end
	}

	if err != nil {
		err = fmt.Errorf("%w: %w", ErrUnhealthy, notOurs{err})
	}

	h.mu.Lock()

	switch {
	case err == nil && h.ctx == nil:
		h.ctx, h.end = context.WithCancelCause(ctx)
		close(h.passed)
	case err != nil && h.ctx != nil:
		h.end(err)
		h.ctx, h.passed = nil, make(chan struct{})
	}

	changed := err != nil && !h.down
	h.down = err != nil
	h.mu.Unlock()

	if changed {
		h.failed(err)
	}
}

// healthy waits until the state is healthy, and returns a context that ends with that, or with Run. It is nil
// if ctx, Run's, ends first.
func (h *health) healthy(ctx context.Context) context.Context {
	for {
		h.mu.Lock()
		healthy, passed := h.ctx, h.passed
		h.mu.Unlock()

		if healthy != nil {
			return healthy
		}

		select {
		case <-passed:
		case <-ctx.Done():
			return nil
		}
	}
}
