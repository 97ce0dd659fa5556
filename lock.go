package pglocker

import (
	"context"
	"sync"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
)

// Lock is a lock that is held and kept alive. It is safe for concurrent use.
type Lock struct {
	locker  *Locker
	lease   *keepalive.Lease
	ttl     time.Duration
	minHold time.Duration
	// state is what a release goes by.
	state store.State
	// granted is when the grant was acknowledged, by the local clock.
	granted time.Time

	ctx    context.Context
	cancel context.CancelCauseFunc
	// outer is the lock whose context this one's was made from, nil if there is none.
	outer *Lock

	// freed is closed when the first Unlock has ended.
	freed chan struct{}

	// mu guards what follows. It is not held while the database is asked.
	mu     sync.Mutex
	status LockStatus
	// statusAt is when status was acknowledged, by the local clock.
	statusAt time.Time
	// lost is why the lock was lost, nil as long as it wasn't. Once it is unlocked
	// it can't be lost any more.
	lost error
	// gone: it was lost because the database said so.
	gone     bool
	unlocked bool
	// rowHolders names the transactions that had the row locked since the last renewal, as
	// far as they are known.
	rowHolders string
}

type lockKey struct{}

// FromContext returns the lock under which the function runs that [Locker.Do]
// called with ctx, or with a context that ctx was made from. It also finds the
// lock of a [Lock.Context].
func FromContext(ctx context.Context) (*Lock, bool) {
	lock, ok := ctx.Value(lockKey{}).(*Lock)

	return lock, ok
}

// Token returns the fencing token ([Lock.Token]) of the lock that [FromContext] finds. It is
// false if there is none.
func Token(ctx context.Context) (token int64, ok bool) {
	lock, ok := FromContext(ctx)
	if !ok {
		return 0, false
	}

	return lock.Token(), true
}

// TryLock takes the lock if it is free, and keeps it alive until [Lock.Unlock] or
// [Locker.Close]. The lease runs for ttl, and is renewed as [Locker.Do] describes,
// by default after a third of it. The lock does not end with ctx, whose values
// its context has.
//
// It doesn't wait for a holder, but it waits for a transaction that has the row
// locked while the lock itself is free, such as a guarded one that outlived its
// lease: give ctx a deadline.
//
// Errors: [ErrAlreadyLocked], as a [*HeldError], if another holds the lock, or did when
// it was last asked for before the time of [WithWait] was over; [ErrLockLost] if the
// grant took as long as its lease, so that it was given back; the other errors of
// [Locker.AcquireLock]; those of the options.
func (l *Locker) TryLock(ctx context.Context, lockID string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.lock(ctx, lockID, ttl, tryLock, opts)
}

// Lock takes the lock as [Locker.TryLock] does, and waits for it until ctx ends. Those who
// wait in one Locker are served in the order in which they came. Called with a context under
// which the same lock is held, such as [Locker.Do]'s, Lock would wait for itself. It then
// returns a [*HeldError] at once.
//
// If ctx ends first, the error matches ctx's. It also matches
//
//   - [*HeldError], if another held the lock when the database last answered, and says how
//     long ago that was;
//   - what has kept the database from answering since then, such as a refused connection;
//   - [ErrUnknownOutcome], if ctx ended while the first request was under way.
//
// A grant that arrives after ctx has ended is released. The caller needn't do anything.
//
// Lock keeps trying while the database doesn't answer, or answers when the lease is over, or
// refuses a request for a reason that may pass: a timeout that the role has set (lock_timeout,
// statement_timeout), no room (SQLSTATE class 53), a server that is starting, or a connection
// to a standby. If the first request meets with another error, or can't reach the server, Lock
// returns that error.
func (l *Locker) Lock(ctx context.Context, lockID string, ttl time.Duration, opts ...LockOption) (*Lock, error) {
	return l.lock(ctx, lockID, ttl, waitForLock, opts)
}

// Whether a call waits where no option says how long.
const (
	tryLock     = false
	waitForLock = true
)

func (l *Locker) lock(ctx context.Context, lockID string, ttl time.Duration, wait bool, opts []LockOption) (*Lock, error) {
	end, err := l.beginVerb(lockID)
	if err != nil {
		return nil, err
	}
	defer end()

	if err := l.validateTTL(ttl); err != nil {
		return nil, err
	}

	options, err := newLockOptions(ttl, max(ttl/3, 1), opts)
	if err != nil {
		return nil, err
	}

	lock, err := l.take(ctx, context.WithoutCancel(ctx), lockID, ttl, wait, options)
	if err != nil {
		return nil, failed("lock", lockID, err)
	}

	if !l.held.add(lock) { // closed meanwhile
		_ = lock.Unlock(context.WithoutCancel(ctx)) // bounded by its lease

		return nil, ErrClosed
	}

	return lock, nil
}

// take takes the lock within ctx, and starts to keep it alive. The lock's context
// is made from parent.
func (l *Locker) take(ctx, parent context.Context, lockID string, ttl time.Duration, wait bool, o lockOptions) (*Lock, error) {
	res, err := l.acquireWaiting(ctx, lockID, ttl, wait, o.wait)
	if err != nil {
		return nil, err
	}

	term := l.termOf(res, ttl)
	if term.Left(time.Now()) <= 0 {
		l.passOn(lockID, res, ttl)

		return nil, errLateGrant
	}

	return l.hold(parent, newStatus(lockID, res.Row), term, o, false), nil
}

// hold starts to keep alive a lease whose present term is known.
func (l *Locker) hold(parent context.Context, status *LockStatus, term keepalive.Term, o lockOptions, renewNow bool) *Lock {
	lk := &Lock{
		locker: l, status: *status, state: status.state(), ttl: term.TTL, minHold: o.minHold, granted: time.Now(),
		freed: make(chan struct{}),
	}
	lk.statusAt = lk.granted
	lk.outer, _ = FromContext(parent)

	ctx, cancel := context.WithCancelCause(parent)
	lk.cancel = cancel
	lk.ctx = context.WithValue(ctx, lockKey{}, lk)
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

// Context is cancelled with a cause that matches [ErrLockLost] the moment the
// lock can't be trusted any more. It is also cancelled when the lock is unlocked,
// and with cause [ErrClosed] when the Locker is closed. Inside [Locker.Do] it
// ends with the context given to Do as well; the lock is held even then, until
// Do's function returns.
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

// heldError says that this lock is held, by what was last acknowledged.
func (lk *Lock) heldError() *HeldError {
	lk.mu.Lock()
	defer lk.mu.Unlock()

	return &HeldError{
		LockID:     lk.status.LockID,
		Owner:      lk.status.Owner,
		Generation: lk.status.Generation,
		Remaining:  max(lk.ttl-time.Since(lk.statusAt), 0),
	}
}

// loss is why the lock was lost, nil if it wasn't.
func (lk *Lock) loss() error {
	lk.mu.Lock()
	defer lk.mu.Unlock()

	return lk.lost
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

	lk.lost = tidy(lossError(lk.status.LockID, lk.lease.Generation, loss, lk.rowHolders))

	err := lk.lost
	lk.gone = loss.Gone
	lk.cancel(err)
	lk.mu.Unlock()

	// Who waits here for the lock that was held here has not asked the database.
	lk.locker.queue.WakeAfter(lk.lease.LockID, lk.locker.cfg.margin(lk.ttl)+pollLate)

	lk.locker.held.remove(lk)
	lk.lostFor(loss, err)
}
