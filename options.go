package pglocker

import (
	"fmt"
	"math"
	"time"
)

// LockOption changes how [Locker.Do], [Locker.Lock] and [Locker.TryLock] take and hold a lock. The methods of
// recipes take it too.
type LockOption func(*lockOptions)

// lockOptions are what the options of one call add up to.
type lockOptions struct {
	relockInterval, wait, minHold time.Duration
	// permits is that of WithPermits, if manyPermits is set.
	permits     int
	manyPermits bool
}

// WithRelockInterval sets the time between renewals. It must be above zero and below the TTL
// ([ErrInvalidRelockInterval]). Default: a third of the TTL. With [Locker.Do], the default is Do's argument
// relockInterval.
func WithRelockInterval(d time.Duration) LockOption {
	return func(o *lockOptions) { o.relockInterval = d }
}

// Forever is for [WithWait]: wait until the context ends.
const Forever time.Duration = math.MaxInt64

// WithWait makes [Locker.Do] and [Locker.TryLock] wait for a lock that another holds, for d at most, or with
// [Forever] until their context ends. With [Locker.Lock], the earlier of d and ctx's deadline applies. Zero
// is as if the option were not given. d must not be negative ([ErrInvalidWait]).
//
// When d has passed and the lock was not granted, they fail with
//
//   - [ErrAlreadyLocked], if another held the lock when the database last answered. The error also matches
//     what has kept the database from answering since then.
//   - [ErrUnknownOutcome], if their requests were not answered by then.
//   - An error that matches [context.DeadlineExceeded], if none could be sent.
//
// They may then take a second more to ask who holds the lock. If their context was made from
// that of this same lock, they fail at once, as [Locker.Lock] does.
func WithWait(d time.Duration) LockOption {
	return func(o *lockOptions) { o.wait = d }
}

// WithMinHold sets a minimum hold: the lock stays held until d has passed since it was granted, even if it is
// unlocked before. The caller doesn't wait for that. It is for jobs that must run once per time slot, by
// processes whose clocks differ. A late process finds the lock still held. Its [HeldError] names no owner if
// the lock was unlocked.
//
// The hold is kept even if the function of [Locker.Do] fails. It is written when the lock is unlocked. So if
// the holder crashes, the lock is free when its lease ends. d must be within 0 and [MaxTTL]
// ([ErrInvalidMinHold]). It may be longer than the TTL.
func WithMinHold(d time.Duration) LockOption {
	return func(o *lockOptions) { o.minHold = d }
}

// newLockOptions adds the options up and checks them.
func newLockOptions(ttl, relockInterval time.Duration, opts []LockOption) (lockOptions, error) {
	o := lockOptions{relockInterval: relockInterval}

	if len(opts) > 0 { // else nothing needs to be on the heap
		given := o

		for _, opt := range opts {
			if opt != nil {
				opt(&given)
			}
		}

		o = given
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
