package pglocker

import (
	"context"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// RWLock is a read-write lock: many readers hold it at the same time, or one writer alone. Make it with
// [Locker.NewRWLock]. It is safe for concurrent use, and needn't be closed.
//
// A writer that waits for readers stops new ones: until it is granted the lock, only readers that are there
// already stay. It says so in a lease of its own, which it renews while it waits. So a writer that crashed while
// it waited stops readers for its TTL at most, and for ten seconds at most. Readers don't stop a writer from
// being next, and a stream of writers doesn't keep readers out for ever: calls of one Locker are served in the
// order in which they came, those under the context of a reader first. Between processes, a waiting writer stops
// readers only while readers hold the lock. So when a writer releases it, no reader is stopped until a writer asks
// in vain.
type RWLock struct {
	family
	readers int
}

// RWLockOption changes an [RWLock].
type RWLockOption func(*RWLock)

// WithMaxReaders sets how many readers may hold the lock at the same time. Default: 64. It must be within 1 and
// [MaxPermits] ([ErrInvalidReaders]). The number is never stored: each reader goes by that of its own RWLock.
func WithMaxReaders(n int) RWLockOption {
	return func(rw *RWLock) { rw.readers = n }
}

const defaultReaders = 64

// NewRWLock returns the read-write lock of a name. It sends nothing. It has nothing in common with a lock or
// another recipe of the same name. Errors: [ErrInvalidName], [ErrInvalidReaders].
func (l *Locker) NewRWLock(name string, opts ...RWLockOption) (*RWLock, error) {
	f, err := l.newFamily(KindRWLock, name)
	if err != nil {
		return nil, err
	}

	rw := &RWLock{f, defaultReaders}

	for _, opt := range opts {
		if opt != nil {
			opt(rw)
		}
	}

	if rw.readers < 1 || rw.readers > MaxPermits {
		return nil, fmt.Errorf("%w: %d", ErrInvalidReaders, rw.readers)
	}

	return rw, nil
}

// Lock takes write access, and keeps it alive until [Access.Unlock] or [Locker.Close]. It waits until ctx ends.
// The lease runs for ttl. It is renewed as [Locker.Do] describes. Cancelling ctx doesn't release it. The access's
// context inherits ctx's values only.
//
// If ctx was made from the context of read access to this same lock, the error is [ErrUpgrade], at once. If it
// was made from that of write access, it is a [*HeldError], at once. Otherwise the errors are those of
// [Locker.Lock]. The HeldError is about the holder in the way whose lease ends first.
func (rw *RWLock) Lock(ctx context.Context, ttl time.Duration, opts ...LockOption) (*Access, error) {
	return rw.take(ctx, ttl, false, true, opts)
}

// TryLock is [RWLock.Lock] that doesn't wait, and stops no reader. If the lock is held, the error is a
// [*HeldError].
func (rw *RWLock) TryLock(ctx context.Context, ttl time.Duration, opts ...LockOption) (*Access, error) {
	return rw.take(ctx, ttl, false, false, opts)
}

// RLock takes read access, as [RWLock.Lock] takes write access. It waits while a writer has the lock or waits for
// it, and while there are as many readers as [WithMaxReaders] says. If ctx was made from the context of read
// access to this same lock, a waiting writer doesn't stop it, and it fails with a [*HeldError], at once, if those under
// ctx are as many readers already.
func (rw *RWLock) RLock(ctx context.Context, ttl time.Duration, opts ...LockOption) (*Access, error) {
	return rw.take(ctx, ttl, true, true, opts)
}

// TryRLock is [RWLock.RLock] that doesn't wait. If a writer has the lock, or waits for it, the error is a
// [*HeldError]. If there are too many readers, it is also [ErrTooManyReaders].
func (rw *RWLock) TryRLock(ctx context.Context, ttl time.Duration, opts ...LockOption) (*Access, error) {
	return rw.take(ctx, ttl, true, false, opts)
}

func (rw *RWLock) take(ctx context.Context, ttl time.Duration, reading, wait bool, opts []LockOption) (*Access, error) {
	l := rw.locker

	options, end, err := l.beginHold(ttl, max(ttl/3, 1), opts)
	if err != nil {
		return nil, err
	}
	defer end()

	if wait && options.wait == 0 {
		options.wait = Forever
	}

	asked := store.SlotsRequest{TTL: ttl, Permits: 1, Want: 1, Writes: true}
	if reading {
		asked = store.SlotsRequest{TTL: ttl, Permits: rw.readers, Want: 1}
	}

	held := rw.held(ctx)

	for _, lk := range held {
		switch writes := slotOf(lk.lease.LockID) == 0; {
		case !writes && !reading:
			return nil, fmt.Errorf("%w: it is held under the context of this call", ErrUpgrade)
		case options.wait > 0 && (writes || len(held) >= rw.readers):
			return nil, waitsForItself(lk)
		}

		asked.Nested = true
	}

	a, err := rw.access(ctx, asked, options)
	if err != nil {
		return nil, failed("lock", rw.name, err)
	}

	return a, nil
}

func (rw *RWLock) access(ctx context.Context, asked store.SlotsRequest, o lockOptions) (*Access, error) {
	g, err := rw.family.take(ctx, context.WithoutCancel(ctx), asked, o)
	if err != nil {
		return nil, err
	}

	if err := g.keep(ctx); err != nil {
		return nil, err
	}

	return &Access{group: g, rw: rw, options: o, reading: !asked.Writes}, nil
}
