package pglocker

import (
	"fmt"
	"math"
	"time"
)

// LockOption changes how [Locker.Do], [Locker.Lock] and [Locker.TryLock] take and hold a lock.
type LockOption func(*lockOptions)

// lockOptions are what the options of one call add up to.
type lockOptions struct {
	relockInterval, wait, minHold time.Duration
}

// WithRelockInterval sets the time between renewals. It must be above zero and below the TTL
// ([ErrInvalidRelockInterval]). Default: a third of the TTL; with [Locker.Do], its argument.
func WithRelockInterval(d time.Duration) LockOption {
	return func(o *lockOptions) { o.relockInterval = d }
}

// Forever is for [WithWait]: wait until the context ends.
const Forever time.Duration = math.MaxInt64

// WithWait makes [Locker.Do] and [Locker.TryLock] wait for a lock that another holds, for d at most, or with
// [Forever] until their context ends. With [Locker.Lock], the earlier of d and ctx's deadline applies. Zero
// is as if the option were not given. d must not be negative ([ErrInvalidWait]).
//
// When d has passed, they fail with
//
//   - [ErrAlreadyLocked], if another held the lock when the database last answered. The error also matches
//     what has kept the database from answering since then.
//   - [ErrUnknownOutcome], if their requests were not answered by then.
//   - An error that matches [context.DeadlineExceeded], if none could be sent.
//
// Asking who holds the lock may take a second more. Called with a context under which the same lock is held,
// they fail at once, as [Locker.Lock] does.
func WithWait(d time.Duration) LockOption {
	return func(o *lockOptions) { o.wait = d }
}

// WithMinHold keeps the lock held until d has passed since it was granted, even if it is unlocked before. The
// caller doesn't wait for that. It is for jobs that must run once per time slot on machines whose clocks
// differ: a machine that is late finds the lock still held, and the [HeldError] names no owner.
//
// The hold is kept even if the function of [Locker.Do] fails. It is written when the lock is unlocked: if the
// holder crashes, it ends with the lease. d must be within 0 and [MaxTTL] ([ErrInvalidMinHold]). It may be
// longer than the TTL.
func WithMinHold(d time.Duration) LockOption {
	return func(o *lockOptions) { o.minHold = d }
}

// newLockOptions adds the options up and checks them.
func newLockOptions(ttl, relockInterval time.Duration, opts []LockOption) (lockOptions, error) {
	o := lockOptions{relockInterval: relockInterval}
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}

	switch {
	case o.relockInterval <= 0:
		return o, fmt.Errorf("%w: %s is not above zero", ErrInvalidRelockInterval, o.relockInterval)
	case o.relockInterval >= ttl:
		return o, fmt.Errorf("%w: %s is not below the TTL of %s", ErrInvalidRelockInterval, o.relockInterval, ttl)
	case o.wait < 0:
		return o, fmt.Errorf("%w: %s is negative", ErrInvalidWait, o.wait)
	case o.minHold < 0 || o.minHold > MaxTTL:
		return o, fmt.Errorf("%w: %s is not within 0 and %s", ErrInvalidMinHold, o.minHold, MaxTTL)
	}

	return o, nil
}
