package pglocker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/line"
	"github.com/ismurov/pglocker/internal/store"
)

// Lock is a lock that is held and kept alive. It is safe for concurrent use.
type Lock struct {
	// group is this lock alone, or several that are held as one.
	group *group
	lease keepalive.Lease
	ttl   time.Duration
	// granted is when the grant was acknowledged.
	granted time.Time
	tenure  handover.Tenure
	// afterCrash is what PreviousHolderCrashed says.
	afterCrash bool

	// group.mu guards the rest.
	status LockStatus
	// statusAt is when status was acknowledged.
	statusAt time.Time
	// gone: the database said that this lock is lost.
	gone bool
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

	if !l.held.add(lock.group) { // closed meanwhile
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

	res, term, err := l.acquire(ctx, line.Request{LockID: lockID, TTL: ttl, Wait: o.wait})
	if err != nil {
		return nil, err
	}

	lk := l.hold(parent, newStatus(lockID, res.Row), term, o, false)
	lk.afterCrash = res.Row.AfterCrash
	lk.group.startHold(res.HandedOver)

	return lk, nil
}

// acquire is [line.Line.Acquire], with the errors of this package.
func (l *Locker) acquire(ctx context.Context, r line.Request) (res store.Result, term keepalive.Term, err error) {
	res, term, err = l.line.Acquire(ctx, r)
	if errors.Is(err, line.ErrLate) {
		err = fmt.Errorf("%w: %w", ErrLockLost, err)
	}

	return res, term, err
}

// hold starts to keep alive a lease whose present term is known.
func (l *Locker) hold(parent context.Context, status *LockStatus, term keepalive.Term, o lockOptions, renewNow bool) *Lock {
	alone := new(struct {
		group
		lock Lock
		list [1]*Lock
	})
	lk, g := &alone.lock, &alone.group

	lk.init(g, status, term, o, renewNow)
	g.locks = append(alone.list[:0], lk)
	g.shown = lk
	g.begin(parent, l)
	l.renewer.Add(&lk.lease, term)

	return lk
}

// init makes a lock of a group, of which nothing is kept alive yet.
func (lk *Lock) init(g *group, status *LockStatus, term keepalive.Term, o lockOptions, renewNow bool) {
	now := time.Now()
	*lk = Lock{
		group: g, ttl: term.TTL, granted: now, status: *status, statusAt: now,
		tenure: handover.Tenure{LockID: status.LockID, State: status.state()},
	}

	if o.minHold > 0 {
		lk.tenure.HeldUntil = now.Add(o.minHold)
	}

	lk.lease = keepalive.Lease{
		LockID:     status.LockID,
		Generation: status.Generation,
		Interval:   o.relockInterval,
		RenewNow:   renewNow,
		Holder:     (*leaseHolder)(lk),
	}
}

// leaseHolder is a Lock as the renewer knows it.
type leaseHolder Lock

func (h *leaseHolder) Renewed(expiresAt time.Time, left time.Duration) {
	(*Lock)(h).renewed(expiresAt, left)
}

// Lost cancels the lock's context, and leaves the renewer to cancel those of others.
func (h *leaseHolder) Lost(loss keepalive.Loss) {
	h.group.lose((*Lock)(h), loss, nil, h.group.locker.desk.Aside)
}

func (h *leaseHolder) Locked() { (*Lock)(h).rowLocked() }

// Context returns the lock's context. It is cancelled
//
//   - when the lock is unlocked;
//   - with cause [ErrClosed], when the Locker is closed;
//   - with a cause that matches [ErrLockLost], at the moment when the lock can't be trusted any more.
//
// Inside [Locker.Do] it also ends with the context given to Do. The lock is held even then, until Do's
// function returns.
func (lk *Lock) Context() context.Context { return lk.group.ctx }

// Token returns the fencing token. It is larger than those of all earlier holders of this lock, and the same
// as long as this lock is held. A resource that remembers the largest token it has seen can refuse a holder
// that has lost the lock.
func (lk *Lock) Token() int64 { return lk.lease.Generation }

// Status returns the lock as the last acknowledged grant or renewal left it.
func (lk *Lock) Status() LockStatus {
	lk.group.mu.Lock()
	defer lk.group.mu.Unlock()

	return lk.status
}

func (lk *Lock) renewed(expiresAt time.Time, left time.Duration) {
	lk.group.locker.watch.renewed(lk, left)

	lk.group.mu.Lock()
	defer lk.group.mu.Unlock()

	lk.status.ExpiresAt, lk.statusAt = expiresAt, time.Now()
	lk.rowHolders = ""
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
func (lk *Lock) Unlock(ctx context.Context) error { return lk.group.unlock(ctx) }
