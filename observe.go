package pglocker

import (
	"context"
	"time"

	"github.com/ismurov/pglocker/internal/keepalive"
)

// Operation is what an [Observer] is told about.
type Operation string

const (
	// OperationAcquire is one request for a lock that doesn't wait, or to refresh one.
	OperationAcquire Operation = "acquire"
	// OperationWait is the time in line for a lock that another holds.
	OperationWait Operation = "wait"
	// OperationRenew is one statement that renews the leases that are due.
	OperationRenew Operation = "renew"
	// OperationRelease is a release, by whatever method, retries included, or the
	// hand-over to the next in this Locker.
	OperationRelease Operation = "release"
)

// Observer is told when operations start and end, and when a lock is lost. It is
// meant for metrics and traces. Its methods are called from many goroutines at
// once, inside the operations: they must return at once and must not call the
// Locker.
type Observer interface {
	// OperationStart is called before an operation. The context that it returns,
	// made from ctx, is given to OperationEnd and to the database's driver; of operations
	// that go together in one statement, the driver is given that of one.
	OperationStart(ctx context.Context, start OperationStart) context.Context
	// OperationEnd is called after it.
	OperationEnd(ctx context.Context, end OperationEnd)
	// LockLost is called once for each lock that is lost while it is held.
	LockLost(lost LockLost)
}

// OperationStart says what starts.
type OperationStart struct {
	Operation Operation
	// LockID is "" for OperationRenew.
	LockID string
	// Locks is how many locks it is about, 0 while the connection for renewals is opened.
	Locks int
}

// OperationEnd says how it ended.
type OperationEnd struct {
	OperationStart
	// Duration is from start to end.
	Duration time.Duration
	// Err is the error that the caller gets ([ErrAlreadyLocked], for example), nil if
	// there is none, without the text that names the operation and the lock.
	Err error
}

// LockLost says which lock was lost, and why.
type LockLost struct {
	LockID string
	// Token is the one under which it was held.
	Token int64
	// Gone: the database answered that the lease is over. Otherwise no renewal was
	// acknowledged in time.
	Gone bool
	// Err is the cause of the lock's cancelled context.
	Err error
}

// watch calls the observer, if there is one.
type watch struct{ observer Observer }

// span is one operation under observation.
type span struct {
	observer Observer
	ctx      context.Context
	start    OperationStart
	began    time.Time
}

func (w watch) start(ctx context.Context, op Operation, lockID string, locks int) span {
	s := span{observer: w.observer, ctx: ctx}

	if w.observer != nil {
		s.start = OperationStart{Operation: op, LockID: lockID, Locks: locks}
		s.began = time.Now()
		s.ctx = w.observer.OperationStart(ctx, s.start)
	}

	return s
}

func (s span) end(err error) {
	if s.observer != nil {
		s.observer.OperationEnd(s.ctx, OperationEnd{OperationStart: s.start, Duration: time.Since(s.began), Err: tidy(err)})
	}
}

func (w watch) lost(lk *Lock, loss keepalive.Loss, err error) {
	if w.observer != nil {
		w.observer.LockLost(LockLost{LockID: lk.lease.LockID, Token: lk.lease.Generation, Gone: loss.Gone, Err: err})
	}
}
