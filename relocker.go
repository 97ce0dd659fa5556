package pglocker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/pause"
	"github.com/ismurov/pglocker/internal/store"
)

// StartRelocker keeps the lock of the given status alive until ctx ends. It then releases the lock, and
// returns. It renews the lease at once, for ttl, and then every relockInterval as [Locker.Do] does. Renewals
// don't change the generation, so the status stays valid. A lease that has ended is not revived: call
// [Locker.RefreshLock] first.
//
// It returns nil after the release. Errors:
//
//   - One that matches [ErrLockLost], as soon as the lock can't be trusted any more. That is at the latest
//     ttl after the last acknowledged renewal, or after the call if there was none.
//   - [ErrNotReleased], if the release was not acknowledged.
//   - [ErrClosed], after the release, if the Locker is closed.
//   - [ErrStatusIsNil], [ErrInvalidLockID], [ErrInvalidTTL], [ErrInvalidRelockInterval].
func (l *Locker) StartRelocker(ctx context.Context, status *LockStatus, ttl, relockInterval time.Duration) error {
	if status == nil {
		return ErrStatusIsNil
	}

	options, end, err := l.beginLock(status.LockID, ttl, relockInterval, nil)
	if err != nil {
		return err
	}
	defer end()

	detached := context.WithoutCancel(ctx)
	term := keepalive.Term{Sent: time.Now(), TTL: ttl, Margin: l.cfg.margin(ttl)}

	if l.undone(ctx, status, term) {
		return failed("relock", status.LockID, fmt.Errorf("%w: it was granted to another", ErrLockLost))
	}

	lock := l.hold(detached, status, term, options, true)
	lock.group.startHold(false)
	l.held.run(lock.group)

	var closed error

	select {
	case <-ctx.Done():
	case <-lock.Context().Done(): // lost: nobody else unlocks it
		// The caller believes until this returns. What is left of the lease is released after that.
		if end, err := l.desk.Begin(); err == nil {
			go func() {
				defer end()

				_ = lock.Unlock(detached) // for the waiters' sake
			}()
		}

		return failed("relock", status.LockID, context.Cause(lock.Context()))
	case <-l.desk.Context().Done():
		closed = ErrClosed
	}

	return failed("relock", status.LockID, errors.Join(closed, lock.Unlock(detached)))
}

// undone reports whether a crash has undone the state of a status, and another has its generation now. If the
// database doesn't say so within the term, the release goes by the status again.
func (l *Locker) undone(ctx context.Context, status *LockStatus, term keepalive.Term) (undone bool) {
	state := status.state()
	if state.Until.IsZero() {
		return false
	}

	until := time.Now().Add(term.Left(time.Now()))

	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()

	caller := l.desk.Beside.Caller()
	defer caller.Done()

	for {
		left := time.Until(until)

		err := caller.Ask(ctx, until, left/4, func(ctx context.Context, st *store.Store) (err error) {
			undone, err = st.Undone(ctx, status.LockID, state)

			return err
		})
		if err == nil || !store.Transient(err) || !pause.Sleep(ctx, pause.Jitter(max(min(left/20, time.Second), 2*time.Millisecond), 2)) {
			return err == nil && undone
		}
	}
}
