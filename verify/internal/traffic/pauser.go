package traffic

import (
	"context"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ismurov/pglocker"
)

// place is where a client can be told to stop itself. Stopped from outside, it would
// seldom be just there.
type place string

const (
	inCritical place = "critical" // between what was read and the commit
	inRenewer  place = "renewer"  // before or after a renewal was sent
	inRequest  place = "request"  // between a request and its reply

	// beforeGuard is in a transaction that was begun before.
	beforeGuard place = "guard"
)

// pauser stops the process by SIGSTOP where it was told to. The coordinator lets it go
// on. It observes the Locker to know where it is.
type pauser struct{ next atomic.Value }

func (p *pauser) at(where place) { p.next.Store(where) }

// reached stops the process if it was told to stop here, once.
func (p *pauser) reached(where place) {
	if p.next.CompareAndSwap(where, place("")) {
		_ = syscall.Kill(syscall.Getpid(), syscall.SIGSTOP)
	}
}

// OperationStart implements [pglocker.Observer].
func (p *pauser) OperationStart(ctx context.Context, start pglocker.OperationStart) context.Context {
	where := inRequest
	if start.Operation == pglocker.OperationRenew {
		where = inRenewer
	}

	if p.next.Load() == where {
		// At once it would be before sending. A statement takes about a millisecond.
		time.AfterFunc(time.Duration(time.Now().UnixNano()%int64(time.Millisecond)), func() { p.reached(where) })
	}

	return ctx
}

// OperationEnd implements [pglocker.Observer].
func (p *pauser) OperationEnd(context.Context, pglocker.OperationEnd) {}

// LockLost implements [pglocker.Observer].
func (p *pauser) LockLost(pglocker.LockLost) {}
