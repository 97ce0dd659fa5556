package pglocker

import (
	"context"
	"strings"
	"time"
)

// Observer is told when operations start and end, and when a lock is lost. It is meant for metrics and
// traces. Its methods are called by many goroutines at once. They must return at once, and must not call the
// Locker.
//
// An observer that also implements [HoldObserver], [RenewalObserver], [BatchObserver] or [ListenerObserver] is
// told of more. [New] finds out once which of them it implements. A wrapper that embeds an Observer hides the others:
// [JoinObservers] doesn't.
//
// None of these interfaces will get another method. What later versions tell, they tell by further interfaces
// of that kind, and by further fields of the events and values of [Operation], [Kind] and [ListenerState]. So write
// the events' literals with the names of fields, and let a switch have a default.
type Observer interface {
	// OperationStart is called before an operation. It returns ctx, or a context made from it, which is given
	// to OperationEnd and to the database's driver. If one statement serves several operations, the driver
	// gets the context of one of them.
	OperationStart(ctx context.Context, start OperationStart) context.Context
	// OperationEnd is called after an operation, once for each start.
	OperationEnd(ctx context.Context, end OperationEnd)
	// LockLost is called once for each lock that is lost while it is held. Several locks that are held as one are
	// lost as one.
	LockLost(lost LockLost)
}

// HoldObserver is told how long locks are held. The locks of starts less those of ends are held now. A hold of
// [KindElection] is a term that this process leads.
//
// [Locker.AcquireLock] and the other lease methods begin no hold: their callers keep the lock. [Locker.StartRelocker]
// does.
type HoldObserver interface {
	// HoldStart is called when a lock is granted, before its caller gets it. It returns ctx, or a context made
	// from it. The lock's context, and so that of the function that runs under the lock, is made from that.
	HoldStart(ctx context.Context, start HoldStart) context.Context
	// HoldEnd is called once for each start, when the holder ceases to believe that it holds the lock: at the loss,
	// or before the release is sent. So holds of one lock in one process don't overlap. ctx is that of HoldStart, and
	// may have ended.
	HoldEnd(ctx context.Context, end HoldEnd)
}

// RenewalObserver is told of each renewal that was acknowledged.
type RenewalObserver interface {
	LockRenewed(renewed LockRenewed)
}

// BatchObserver is told how many locks one statement is for, when it is sent.
type BatchObserver interface {
	BatchSent(batch BatchSent)
}

// ListenerObserver is told whether waiters are notified of releases, or poll. A Locker begins as
// [ListenerResting].
type ListenerObserver interface {
	ListenerChanged(changed ListenerChanged)
}

// Operation is what an [Observer] is told about.
type Operation string

const (
	// OperationAcquire is one request for a lock outside the line of waiters, or one to refresh a lock. A call
	// that waits begins with one, too, unless other calls of its Locker wait for that lock already.
	OperationAcquire Operation = "acquire"
	// OperationWait is the time in line for a lock that another holds. The locks of starts less those of ends
	// are waited for now.
	OperationWait Operation = "wait"
	// OperationRenew is one statement that renews the leases that are due.
	OperationRenew Operation = "renew"
	// OperationRelease is a release by any method, retries included.
	OperationRelease Operation = "release"
)

// Subject is what an event is about.
type Subject struct {
	// Kind is [KindLock] also for several locks that are taken as one.
	Kind Kind
	// Name is that of the recipe, without the number of a slot. For a lock it is the id.
	Name string
	// LockID is the id of the row, or of the first of several rows. A semaphore and a read-write lock are asked for
	// by the row that all requests have in common, and held and released by the rows of their slots.
	LockID string
	// Locks is how many locks or permits it is about.
	Locks int
}

// OperationStart says which operation starts.
type OperationStart struct {
	Operation Operation
	// Subject has only Locks for OperationRenew. That is 0 if it only opens the connection for renewals.
	Subject
}

// OperationEnd says how an operation ended.
type OperationEnd struct {
	OperationStart
	// Duration is from start to end.
	Duration time.Duration
	// Token is the fencing token that was granted, or is released. Otherwise it is 0.
	Token int64
	// HandedOver: the release of a holder in this Locker has granted the lock.
	HandedOver bool
	// Err is the error that the caller gets, without the text that names the operation and the lock.
	Err error
}

// HoldStart says what is held from now on.
type HoldStart struct {
	Subject
	// Token is the fencing token, that of the first of several locks.
	Token int64
	// TTL is the length of the lease.
	TTL time.Duration
	// HandedOver: the release of a holder in this Locker has granted the lock.
	HandedOver bool
}

// HoldEnd says what is held no longer.
type HoldEnd struct {
	HoldStart
	// HeldFor is the time since HoldStart.
	HeldFor time.Duration
	// Err is why the lock's context had ended before the lock was unlocked: it matches [ErrLockLost], [ErrClosed], or
	// the end of the context given to [Locker.Do]. For an election it may also match [ErrResignRequested] or
	// [ErrUnhealthy]. It is nil if the holder unlocked the lock, or its function returned, while the context lasted.
	Err error
}

// LockRenewed says how near the loss of a lock was.
type LockRenewed struct {
	Subject
	// Token is the fencing token under which the lock is held.
	Token int64
	// TTL is the length of the lease.
	TTL time.Duration
	// Left is how long the lock could still have been trusted, had the renewal not been acknowledged. With the
	// default interval and the default safety margin it is a little above half of the TTL. At 0 the lock would
	// have been lost.
	Left time.Duration
}

// BatchSent says how many locks a statement is for.
type BatchSent struct {
	// Operation is OperationAcquire, OperationRenew or OperationRelease. Requests of waiters are OperationAcquire.
	// Requests for several locks, semaphores and read-write locks have statements of their own, which are not told.
	// So have releases of several locks or permits at once.
	Operation Operation
	// Locks is how many.
	Locks int
}

// ListenerState is how the waiters of a Locker learn of releases in other processes.
type ListenerState string

const (
	// ListenerResting: no call waits for a lock, or has waited lately: the connection that hears is kept for as long as it
	// has heard, from 0.25 to 5 s.
	ListenerResting ListenerState = "resting"
	// ListenerPolling: calls that wait ask again and again.
	ListenerPolling ListenerState = "polling"
	// ListenerHearing: calls that wait are notified.
	ListenerHearing ListenerState = "hearing"
)

// ListenerChanged says how waiters learn of releases from now on.
type ListenerChanged struct{ From, To ListenerState }

// LockLost says which lock was lost, and why.
type LockLost struct {
	// Subject names the lock that was lost first, if several are held as one.
	Subject
	// Token is the fencing token under which the lock was held.
	Token int64
	// HeldFor is the time since the grant.
	HeldFor time.Duration
	// Gone: the database said that the lease is over. Otherwise no renewal was acknowledged in time, or
	// [Locker.ForceRelease] was called in this process.
	Gone bool
	// Err is the cause of the lock's cancelled context.
	Err error
}

// subjectOf is the subject that one row or several are.
func subjectOf(lockID string, locks int) Subject {
	if lockID == "" {
		return Subject{Locks: locks}
	}

	kind, name := KindOf(lockID)
	if kind == KindSemaphore || kind == KindRWLock {
		name = name[:max(strings.LastIndexByte(name, ':'), 0)]
	}

	return Subject{Kind: kind, Name: name, LockID: lockID, Locks: locks}
}
