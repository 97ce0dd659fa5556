package pglocker

import (
	"context"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
)

// Operation is what an [Observer] is told about.
type Operation string

const (
	// OperationAcquire is one request for a lock outside the line of waiters, or one to refresh a lock. A call
	// that waits begins with one, too, unless other calls of its Locker wait for that lock already.
	OperationAcquire Operation = "acquire"
	// OperationWait is the time in line for a lock that another holds.
	OperationWait Operation = "wait"
	// OperationRenew is one statement that renews the leases that are due.
	OperationRenew Operation = "renew"
	// OperationRelease is a release by any method, retries included.
	OperationRelease Operation = "release"
)

// Observer is told when operations start and end, and when a lock is lost. It is meant for metrics and
// traces. Its methods are called by many goroutines at once. They must return at once, and must not call the
// Locker.
type Observer interface {
	// OperationStart is called before an operation. It returns ctx, or a context made from it, which is given
	// to OperationEnd and to the database's driver. If one statement serves several operations, the driver
	// gets the context of one of them.
	OperationStart(ctx context.Context, start OperationStart) context.Context
	// OperationEnd is called after an operation.
	OperationEnd(ctx context.Context, end OperationEnd)
	// LockLost is called once for each lock that is lost while it is held.
	LockLost(lost LockLost)
}

// OperationStart says which operation starts.
type OperationStart struct {
	Operation Operation
	// LockID is "" for OperationRenew.
	LockID string
	// Locks is how many locks the operation is about. It is 0 for an OperationRenew that only opens the
	// connection for renewals.
	Locks int
}

// OperationEnd says how an operation ended.
type OperationEnd struct {
	OperationStart
	// Duration is from start to end.
	Duration time.Duration
	// Err is the error that the caller gets, without the text that names the operation and the lock.
	Err error
}

// LockLost says which lock was lost, and why.
type LockLost struct {
	LockID string
	// Token is the fencing token under which the lock was held.
	Token int64
	// Gone: the database said that the lease is over. Otherwise no renewal was acknowledged in time.
	Gone bool
	// Err is the cause of the lock's cancelled context.
	Err error
}

type watch struct{ observer Observer }

func (w watch) start(ctx context.Context, op Operation, lockID string, locks int) (watched context.Context, end func(error)) {
	if w.observer == nil {
		return ctx, unobserved
	}

	return w.begin(ctx, op, lockID, locks)
}

func unobserved(error) {}

// begin is start for an observer. What it allocates costs nobody else anything.
func (w watch) begin(ctx context.Context, op Operation, lockID string, locks int) (watched context.Context, end func(error)) {
	start := OperationStart{Operation: op, LockID: lockID, Locks: locks}
	began := time.Now()
	watched = w.observer.OperationStart(ctx, start)

	return watched, func(err error) {
		w.observer.OperationEnd(watched, OperationEnd{OperationStart: start, Duration: time.Since(began), Err: tidy(err)})
	}
}

func (w watch) request(ctx context.Context, waits bool, lockID string, locks int) (watched context.Context, end func(error)) {
	if waits {
		return w.start(ctx, OperationWait, lockID, locks)
	}

	return w.start(ctx, OperationAcquire, lockID, locks)
}

func (w watch) lost(lk *Lock, loss keepalive.Loss, err error) {
	if w.observer != nil {
		w.observer.LockLost(LockLost{LockID: lk.lease.LockID, Token: lk.lease.Generation, Gone: loss.Gone, Err: err})
	}
}

// renewals is a session for renewals, under observation.
type renewals struct {
	*beside.Session
	watch watch
}

func (r renewals) Connect(ctx context.Context) error {
	if r.Shared() {
		return nil
	}

	ctx, end := r.watch.start(ctx, OperationRenew, "", 0)
	err := r.Session.Connect(ctx)
	end(err)

	return err
}

func (r renewals) Renew(ctx context.Context, due []store.Renewal) (results []store.RenewResult, sent time.Time, err error) {
	ctx, end := r.watch.start(ctx, OperationRenew, "", len(due))
	results, sent, err = r.Store.Renew(ctx, due)
	end(err)

	return results, sent, err
}
