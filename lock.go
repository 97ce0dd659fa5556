package pglocker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/line"
)

// Lock is a lock that is held and kept alive. It is safe for concurrent use.
type Lock struct {
	locker *Locker
	lease  *keepalive.Lease
	ttl    time.Duration
	// granted is when the grant was acknowledged.
	granted time.Time
	tenure  handover.Tenure
	// afterCrash is what PreviousHolderCrashed says.
	afterCrash bool

	ctx    context.Context
	cancel context.CancelCauseFunc
	// outer is the lock whose context this one's was made from, nil if there is none.
	outer *Lock

	// freed is closed when the first Unlock has ended.
	freed chan struct{}

	// mu guards what follows. It is not held while the database is asked.
	mu     sync.Mutex
	status LockStatus
	// statusAt is when status was acknowledged.
	statusAt time.Time
	// lost is why the lock was lost, nil if it wasn't. An unlocked lock can't be lost.
	lost error
	// gone: it was lost because the database said so.
	gone     bool
	unlocked bool
	// rowHolders names the transactions that are known to have locked the row since the last renewal.
	rowHolders string
}

// TryLock takes the lock if it is free, and keeps it alive until [Lock.Unlock] or [Locker.Close]. The lease
// runs for ttl. It is renewed as [Locker.Do] describes. Cancelling ctx doesn't release the lock. The lock's
// context inherits ctx's values only.
//
// TryLock doesn't wait for a holder. It may wait for a transaction that has the row of a free lock locked,
// such as a guarded one that outlived its lease: give ctx a deadline.
//
// Errors: [ErrAlreadyLocked], as a [*HeldError], if another holds the lock; [ErrLockLost], if the grant took
// as long as its lease and was released; the others of [Locker.AcquireLock]; those of the options.
func (l *Locker) TryLock(ctx context.Context, lockID string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.lock(ctx, lockID, ttl, false, opts)
}

// Lock takes the lock as [Locker.TryLock] does, but waits for it until ctx ends. Calls of one Locker that wait
// for the same lock are served in the order in which they came. If ctx was made from the context of this same
// lock, as inside [Locker.Do], Lock returns a [*HeldError] at once: it would wait for itself.
//
// If ctx ends first, the error matches ctx's. It also matches
//
//   - [*HeldError], if another held the lock when the database last answered;
//   - what has kept the database from answering since then, such as a refused connection;
//   - [ErrUnknownOutcome], if ctx ended while the first request was under way.
//
// A grant that arrives after ctx has ended is released. The caller needn't do anything.
//
// Lock keeps trying while the database doesn't answer in time, or refuses for a reason that may pass: a timeout
// that the role has set, no room (SQLSTATE class 53), a server that is starting, a connection to a standby. If
// the first request meets another error, or can't reach the server, Lock returns that error.
func (l *Locker) Lock(ctx context.Context, lockID string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.lock(ctx, lockID, ttl, true, opts)
}

func (l *Locker) lock(ctx context.Context, lockID string, ttl time.Duration, wait bool, opts []LockOption) (*Lock, error) {
	options, end, err := l.beginLock(lockID, ttl, max(ttl/3, 1), opts)
	if err != nil {
		return nil, err
	}
	defer end()

	if wait && options.wait == 0 {
		options.wait = Forever
	}

	lock, err := l.take(ctx, context.WithoutCancel(ctx), lockID, ttl, options)
	if err != nil {
		return nil, failed("lock", lockID, err)
	}

	if !l.held.add(lock) { // closed meanwhile
		_ = lock.Unlock(context.WithoutCancel(ctx)) // bounded by its lease

		return nil, ErrClosed
	}

	return lock, nil
}

// beginLock checks what a call that takes and keeps a lock is given. The caller calls end.
func (l *Locker) beginLock(lockID string, ttl, relockInterval time.Duration, opts []LockOption) (o lockOptions, end func(), err error) {
	if err := validatePlainID(lockID); err != nil {
		return o, nil, err
	}

	return l.beginHold(ttl, relockInterval, opts)
}

// beginHold is beginLock without a lock id.
func (l *Locker) beginHold(ttl, relockInterval time.Duration, opts []LockOption) (o lockOptions, end func(), err error) {
	if end, err = l.desk.Begin(); err != nil {
		return o, nil, err
	}

	if err = l.validateTTL(ttl); err == nil {
		o, err = newLockOptions(ttl, relockInterval, opts)
	}

	if err != nil {
		end()
	}

	return o, end, err
}

// take takes the lock within ctx, and starts to keep it alive. Its context is made from parent.
func (l *Locker) take(ctx, parent context.Context, lockID string, ttl time.Duration, o lockOptions) (*Lock, error) {
	if o.wait > 0 {
		if err := heldUnder(ctx, l, lockID); err != nil {
			return nil, err
		}
	}

	row, term, err := l.line.Acquire(ctx, line.Request{LockID: lockID, TTL: ttl, Wait: o.wait})
	if errors.Is(err, line.ErrLate) {
		err = fmt.Errorf("%w: %w", ErrLockLost, err)
	}

	if err != nil {
		return nil, err
	}

	lk := l.hold(parent, newStatus(lockID, row), term, o, false)
	lk.afterCrash = row.AfterCrash

	return lk, nil
}

// hold starts to keep alive a lease whose present term is known.
func (l *Locker) hold(parent context.Context, status *LockStatus, term keepalive.Term, o lockOptions, renewNow bool) *Lock {
	now := time.Now()
	lk := &Lock{
		locker: l, ttl: term.TTL, granted: now, status: *status, statusAt: now,
		tenure: handover.Tenure{LockID: status.LockID, State: status.state()},
		freed:  make(chan struct{}),
	}

	if o.minHold > 0 {
		lk.tenure.HeldUntil = now.Add(o.minHold)
	}

	lk.outer, _ = FromContext(parent)
	ctx, cancel := context.WithCancelCause(parent)
	lk.ctx, lk.cancel = context.WithValue(ctx, lockKey{}, lk), cancel
	lk.lease = &keepalive.Lease{
		LockID:     status.LockID,
		Generation: status.Generation,
		Interval:   o.relockInterval,
		RenewNow:   renewNow,
		OnRenewed:  lk.renewed,
		OnLost:     lk.lose,
		OnLocked:   lk.rowLocked,
	}
	l.renewer.Add(lk.lease, term)

	return lk
}

// Context returns the lock's context. It is cancelled
//
//   - when the lock is unlocked;
//   - with cause [ErrClosed], when the Locker is closed;
//   - with a cause that matches [ErrLockLost], at the moment when the lock can't be trusted any more.
//
// Inside [Locker.Do] it also ends with the context given to Do. The lock is held even then, until Do's
// function returns.
func (lk *Lock) Context() context.Context { return lk.ctx }

// Token returns the fencing token. It is larger than those of all earlier holders of this lock, and the same
// as long as this lock is held. A resource that remembers the largest token it has seen can refuse a holder
// that has lost the lock.
func (lk *Lock) Token() int64 { return lk.lease.Generation }

// Status returns the lock as the last acknowledged grant or renewal left it.
func (lk *Lock) Status() LockStatus {
	lk.mu.Lock()
	defer lk.mu.Unlock()

	return lk.status
}

func (lk *Lock) renewed(expiresAt time.Time) {
	lk.mu.Lock()
	defer lk.mu.Unlock()

	lk.status.ExpiresAt, lk.statusAt = expiresAt, time.Now()
	lk.rowHolders = ""
}

// lose marks the lock as lost and cancels its context, unless it was unlocked.
func (lk *Lock) lose(loss keepalive.Loss) {
	lk.mu.Lock()

	if lk.unlocked || lk.lost != nil {
		lk.mu.Unlock()

		return
	}

	err := tidy(lossError(lk.lease.LockID, lk.lease.Generation, loss, lk.rowHolders))
	lk.lost, lk.gone = err, loss.Gone
	lk.cancel(err)
	lk.mu.Unlock()

	l := lk.locker
	l.desk.WakeAt(lk.lease.LockID, time.Now().Add(l.cfg.margin(lk.ttl)))
	l.held.remove(lk)
	lk.tellLoss(loss, err)
}

// Unlock cancels the lock's context, and then releases the lock. If another call in this Locker waits for the
// lock, the same statement grants it the lock.
//
// It returns nil if the lock was held until this call. Errors:
//
//   - [ErrLockLost]: the lock was lost before. The error says why.
//   - [ErrAlreadyUnlocked]: Unlock was called before, or Do or Close did it. That call's error says whether
//     the lock was released.
//   - [ErrNotReleased]: the lock was held until this call, but ctx or the lease ended before the database had
//     answered. If ctx ended, the Locker goes on trying in the background.
//
// It returns when ctx ends, and at the latest half a second after the lease has ended.
func (lk *Lock) Unlock(ctx context.Context) error {
	l := lk.locker
	term := l.renewer.Remove(lk.lease)
	now := time.Now()
	loss := keepalive.Loss{Cause: keepalive.Cause{Since: now.Sub(term.Sent)}}

	if term.Left(now) <= 0 {
		lk.lose(loss) // the renewer would have found it at its next look
	}

	lk.mu.Lock()
	again, lost, gone := lk.unlocked, lk.lost, lk.gone
	lk.unlocked = true
	lk.mu.Unlock()

	if again {
		return fmt.Errorf("%w: %q", ErrAlreadyUnlocked, lk.lease.LockID)
	}

	// The holder must have stopped believing before the next begins to.
	lk.cancel(context.Canceled)

	// Close waits for this, also where it finds the lock unlocked.
	defer l.held.remove(lk)
	defer close(lk.freed)

	if gone {
		return lost // there is nothing to release
	}

	if end, err := l.desk.Begin(); err == nil {
		defer end()
	}

	// Close waits for this Unlock, or for Do, unless the lock is lost.
	tenure := lk.tenure
	tenure.Awaited = lost == nil

	ctx, end := l.watch.start(ctx, OperationRelease, lk.lease.LockID, 1)
	err := l.desk.Release(ctx, tenure, now.Add(term.LeaseLeft(now)))
	end(err)

	switch {
	case lost != nil:
		return lost // its release was for the waiters' sake
	case err == nil:
		return nil
	case errors.Is(err, ErrWrongGeneration), errors.Is(err, ErrLockNotFound):
		err = tidy(fmt.Errorf("%w: found on release: %w", ErrLockLost, err))
		loss.Gone = true
		lk.tellLoss(loss, err)

		return err
	default:
		return tidy(fmt.Errorf("%w: %w", ErrNotReleased, err))
	}
}
