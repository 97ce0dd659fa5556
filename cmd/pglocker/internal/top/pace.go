package top

import (
	"context"
	"errors"
	"time"
)

// pace says when the next look begins, and how long it may take.
type pace struct {
	interval time.Duration
	// took is how long the last look took that succeeded, and before the one before it.
	took, before time.Duration
	limit        time.Duration
}

const (
	// restFactor is how many times longer than a look takes the table is left alone.
	restFactor = 10
	// firstLimit is how long a look may take when nothing is known of the table.
	firstLimit = 30 * time.Second
	// limitFactor is how many times longer than the last look one may take before the server counts as hung.
	limitFactor = 5
)

// rest is the time from the end of a look to the beginning of the next. One look alone that was held up, by a
// restart of the server say, doesn't count.
func (p *pace) rest() time.Duration { return max(p.interval, restFactor*min(p.took, p.before)) }

// look calls fn within the limit. If fn ran out of time, it gets twice as much the next time: perhaps the table is
// large, and the server is well.
func (p *pace) look(ctx context.Context, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, p.limit)
	defer cancel()

	began := time.Now()
	err := fn(ctx)

	switch {
	case err == nil:
		took := time.Since(began)
		if p.before = p.took; p.before == 0 {
			p.before = took
		}

		p.took = took
		p.limit = max(firstLimit, limitFactor*p.took)
	case errors.Is(err, context.DeadlineExceeded):
		p.limit *= 2
	}

	return err
}
