package pglocker

import (
	"context"
	"fmt"
	"time"
)

// ElectionOption changes how an [Election] works.
type ElectionOption func(*electionOptions)

// electionOptions are what the options of one election add up to.
type electionOptions struct {
	relockInterval  time.Duration
	shortest        time.Duration
	longest         time.Duration
	observeInterval time.Duration
	healthInterval  time.Duration
	check           func(context.Context) error
	checked         bool
	observeOnly     bool
	onError         func(error)
}

// Defaults.
const (
	shortestBackoff = 250 * time.Millisecond
	longestBackoff  = 15 * time.Second
	longestLook     = 250 * time.Millisecond // of an observer that can't be notified
)

// WithElectionRelockInterval sets the time between renewals of the leader's lease, and between its looks
// for a request to resign. It must be above zero and below the TTL ([ErrInvalidRelockInterval]). Default: a
// third of the TTL.
func WithElectionRelockInterval(d time.Duration) ElectionOption {
	return func(o *electionOptions) { o.relockInterval = d }
}

// WithBackoff sets how long [Election.Run] pauses between the end of a term and its next campaign: about
// shortest at first, then twice as long each time up to longest, less a random part of up to a half. A term
// that has lasted for longest begins the count again. 0 < shortest <= longest must hold ([ErrInvalidBackoff]).
// Default: 250 ms and 15 s. While the database can't be asked, a candidate tries every 0.2 to 0.4 s instead.
func WithBackoff(shortest, longest time.Duration) ElectionOption {
	return func(o *electionOptions) { o.shortest, o.longest = shortest, longest }
}

// WithHealthCheck has [Election.Run] call check every interval. A candidate doesn't campaign before a check
// has succeeded. When one fails, a candidate leaves the line, and a leader resigns: its function's context
// ends with a cause that matches [ErrUnhealthy]. After the next success it campaigns again.
//
// A check that doesn't return within the interval has failed. Its context ends then, and no other is begun
// before it returns. Run waits for it before it returns. interval must be above zero ([ErrInvalidInterval]),
// and check must not be nil ([ErrFuncIsNil]).
func WithHealthCheck(interval time.Duration, check func(ctx context.Context) error) ElectionOption {
	return func(o *electionOptions) { o.healthInterval, o.check, o.checked = interval, check, true }
}

// WithObserveInterval sets how often [Election.Observe] looks while no notification can be heard. It must be
// above zero ([ErrInvalidInterval]). Default: a quarter of the TTL, at most 250 ms.
func WithObserveInterval(d time.Duration) ElectionOption {
	return func(o *electionOptions) { o.observeInterval = d }
}

// WithObserveOnly makes [Election.Run] an error ([ErrObserveOnly]), for a process that must never lead.
func WithObserveOnly() ElectionOption {
	return func(o *electionOptions) { o.observeOnly = true }
}

// WithOnError has [Election.Run] tell report of each error after which it goes on: of its function, of the
// database, of a term that was lost, of a health check. It may be called by two goroutines at
// once, and must return at once. Default: a warning to [Config.Logger].
func WithOnError(report func(error)) ElectionOption {
	return func(o *electionOptions) { o.onError = report }
}

// newElectionOptions adds the options up and checks them.
func newElectionOptions(ttl time.Duration, opts []ElectionOption) (electionOptions, error) {
	o := electionOptions{
		relockInterval: max(ttl/3, 1), shortest: shortestBackoff, longest: longestBackoff,
		observeInterval: min(ttl/4, longestLook),
	}

	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}

	switch {
	case o.shortest <= 0 || o.shortest > o.longest:
		return o, fmt.Errorf("%w: from %s to %s", ErrInvalidBackoff, o.shortest, o.longest)
	case o.checked && o.check == nil:
		return o, fmt.Errorf("%w: the health check", ErrFuncIsNil)
	case o.checked && o.healthInterval <= 0:
		return o, fmt.Errorf("%w: %s between health checks is not above zero", ErrInvalidInterval, o.healthInterval)
	case o.observeInterval <= 0:
		return o, fmt.Errorf("%w: %s between looks is not above zero", ErrInvalidInterval, o.observeInterval)
	}

	_, err := newLockOptions(ttl, o.relockInterval, nil)

	return o, err
}

// backoff are the pauses between campaigns.
type backoff struct {
	shortest, longest time.Duration
	failures          int
}

// next is the next pause at most, after a term that lasted for led.
func (b *backoff) next(led time.Duration) time.Duration {
	if led >= b.longest {
		b.failures = 0
	}

	pause := b.longest
	if b.failures < 62 && b.shortest <= b.longest>>b.failures {
		pause = b.shortest << b.failures
	}

	b.failures++

	return pause
}
