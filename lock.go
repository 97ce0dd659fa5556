package pglocker

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
)

// LockOption changes how a lock is taken and held.
type LockOption func(*lockOptions)

// lockOptions are what the options of one call add up to.
type lockOptions struct {
	relockInterval time.Duration
}

// Lock is a lock that is held and kept alive. It is safe for concurrent use.
type Lock struct {
	locker *Locker
	lease  *keepalive.Lease
	ttl    time.Duration

	ctx    context.Context
	cancel context.CancelCauseFunc

	// mu guards what follows. It is not held while the database is asked.
	mu     sync.Mutex
	status LockStatus
	// lost is why the lock was lost, nil as long as it wasn't. Once it is released
	// it can't be lost any more.
	lost     error
	released bool
}

type lockKey struct{}

// FromContext returns the lock under which the function runs that [Locker.Do]
// called with ctx, or with a context that ctx was made from.
func FromContext(ctx context.Context) (*Lock, bool) {
	lock, ok := ctx.Value(lockKey{}).(*Lock)

	return lock, ok
}

// Context is cancelled with a cause that matches [ErrLockLost] the moment the
// lock can't be trusted any more, and when the lock is released. It is made from
// the context that the lock was taken with, and ends with that one too; a lock
// whose context has ended for another reason is still held and kept alive.
func (lk *Lock) Context() context.Context { return lk.ctx }

// Token is the fencing token: larger than those of all earlier holders of this
// lock, and the same for as long as this lock is held. A resource that remembers
// the largest token it has seen can refuse a holder that doesn't know yet that
// it lost its lock.
func (lk *Lock) Token() int64 { return lk.lease.Generation }

// Status is the lock as the last acknowledged grant or renewal left it.
func (lk *Lock) Status() LockStatus {
	lk.mu.Lock()
	defer lk.mu.Unlock()

	return lk.status
}

// hold starts to keep alive a lease whose present term is known. Its context is
// made from ctx.
func (l *Locker) hold(
	ctx context.Context, status *LockStatus, term keepalive.Term, interval time.Duration, renewNow bool,
) *Lock {
	lk := &Lock{locker: l, status: *status}

	ctx, lk.cancel = context.WithCancelCause(ctx)
	lk.ctx = context.WithValue(ctx, lockKey{}, lk)
	lk.lease = &keepalive.Lease{
		LockID:     status.LockID,
		Generation: status.Generation,
		Interval:   interval,
		RenewNow:   renewNow,
		OnRenewed:  lk.renewed,
		OnLost:     lk.lose,
	}
	l.renewer.Add(lk.lease, term)

	return lk
}

func (lk *Lock) renewed(expiresAt time.Time) {
	lk.mu.Lock()
	defer lk.mu.Unlock()

	lk.status.ExpiresAt = expiresAt
}

// lose marks the lock as lost and cancels its context, unless it was released.
func (lk *Lock) lose(loss keepalive.Loss) {
	lk.mu.Lock()
	defer lk.mu.Unlock()

	if lk.released || lk.lost != nil {
		return
	}

	switch {
	case loss.Gone:
		lk.lost = fmt.Errorf("%w: the database shows %q expired, or with another generation than %d",
			ErrLockLost, lk.status.LockID, lk.lease.Generation)
	case loss.Err != nil:
		lk.lost = fmt.Errorf("%w: no renewal of %q was acknowledged in time: %w", ErrLockLost, lk.status.LockID, loss.Err)
	default:
		lk.lost = fmt.Errorf("%w: no renewal of %q was acknowledged in time", ErrLockLost, lk.status.LockID)
	}

	lk.cancel(lk.lost)
}

// release ends the tenure: it returns nil if the lock was held to this moment and
// is free now, ErrLockLost if it was lost before, and ErrNotReleased if it was
// held and the database could not be told. The database is asked for no longer
// than it may still show the lease.
func (lk *Lock) release() error {
	term := lk.locker.renewer.Remove(lk.lease)
	now := time.Now()

	if term.Left(now) <= 0 {
		// The renewer would have found it at its next look.
		lk.lose(keepalive.Loss{})
	}

	lk.mu.Lock()
	lk.released = true
	lost := lk.lost
	lk.mu.Unlock()

	defer lk.cancel(context.Canceled)

	err := lk.free(term.LeaseLeft(now))

	switch {
	case lost != nil:
		return lost // freeing it early was a courtesy to those who wait
	case err == nil:
		return nil
	case errors.Is(err, ErrWrongGeneration), errors.Is(err, ErrLockNotFound):
		return fmt.Errorf("%w: found on release: %w", ErrLockLost, err)
	default:
		return fmt.Errorf("%w: %w", ErrNotReleased, err)
	}
}

// free asks the database to free the lock, for as long as it may show the lease.
// It asks over the pool, and from the second time on, or where the application
// has the whole pool in use, over a connection of its own.
func (lk *Lock) free(left time.Duration) error {
	l := lk.locker

	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()

	var (
		own   *session
		doubt error
	)

	defer func() {
		if own != nil {
			own.Close()
		}
	}()

	for n := 0; ; n++ {
		st := l.store

		if n > 0 || exhausted(l.db.Stats()) {
			if own == nil {
				own = newSession(l.store, l.db)
			}

			st = own.store
		}

		attempt, cancel := context.WithTimeout(ctx, left/4)
		res, err := st.Release(attempt, lk.lease.LockID, lk.lease.Generation)

		cancel()

		switch {
		case err == nil && doubt != nil && res.Verdict == store.WrongGeneration:
			// The lock was this one's when the request went out whose reply was
			// lost, so that request was the one that moved the generation.
			return nil
		case err == nil:
			return verdictError(res.Verdict)
		case errors.Is(err, ErrUnknownOutcome):
			doubt = err
		case !store.Transient(err):
			return err
		}

		if !store.Pause(ctx, min(left/20, time.Second)) {
			return err
		}
	}
}

// exhausted reports whether a request for a connection of this pool would wait.
func exhausted(stats sql.DBStats) bool {
	return stats.MaxOpenConnections > 0 && stats.InUse >= stats.MaxOpenConnections
}
