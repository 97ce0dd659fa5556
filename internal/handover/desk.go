// Package handover decides what becomes of a tenure that has ended, and of a grant that nobody wants.
//
//	a tenure ends --> a waiter here, whose turn it is? --yes--> hand over, one statement --> delivered
//	                     |no           ^                            |the waiter has left
//	                     v             +----------------------------+
//	                  release for all; wake the head here, or give other processes a start
//
//	a grant came late, or its waiter has left: Return, as a tenure that has ended
//	a reply was lost:                          Settle, which looks for the grant and returns it
//
// A Desk also counts what goes on in the background, for Close to wait for.
package handover

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker/internal/beside"
	"github.com/ismurov/pglocker/internal/keepalive"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

// Config says what a Desk works with.
type Config struct {
	Queue  *waitqueue.Queue
	Store  *store.Store
	Beside *beside.Pool
	Names  *Names
	// Margin is the safety margin for a lease of the given TTL.
	Margin func(ttl time.Duration) time.Duration
	// Heard reports whether this process hears of releases. Without it, it polls.
	Heard func() bool
	// OnTrouble is told of failed releases.
	OnTrouble func(Trouble)
	Log       *slog.Logger
}

// Trouble is a release that failed and is to be repeated.
type Trouble struct {
	// Locks is how many releases are repeated: zero when the last of them has ended.
	Locks  int
	LockID string
	Token  int64
	Err    error
}

// Desk serves one Locker.
type Desk struct {
	Config

	// LocalRun is [MaxLocalRun], but for benchmarks of what goes between processes.
	LocalRun int

	strays  strays
	failing atomic.Int64

	// ctx ends when Close is called.
	ctx   context.Context
	close context.CancelCauseFunc

	// closing is held for reading while a job begins, and for writing by Close.
	closing sync.RWMutex
	jobs    sync.WaitGroup
	jobDone func() // jobs.Done, made once
}

// New returns a Desk that owns nothing yet.
func New(cfg Config) *Desk {
	d := &Desk{Config: cfg, LocalRun: MaxLocalRun}
	d.jobDone = d.jobs.Done
	d.ctx, d.close = context.WithCancelCause(context.Background())

	return d
}

// Context ends when Close is called, with its cause.
func (d *Desk) Context() context.Context { return d.ctx }

// Close keeps jobs from beginning. Those under way end soon.
func (d *Desk) Close(cause error) {
	d.closing.Lock()
	defer d.closing.Unlock()

	d.close(cause)
}

// Wait returns when all jobs have ended, after Close.
func (d *Desk) Wait() { d.jobs.Wait() }

// Begin begins a job, and the caller ends it. Once the Desk is closed, the error is the cause.
func (d *Desk) Begin() (end func(), err error) {
	d.closing.RLock()
	defer d.closing.RUnlock()

	if d.ctx.Err() != nil {
		return nil, context.Cause(d.ctx)
	}

	d.jobs.Add(1)

	return d.jobDone, nil
}

// Aside runs a job on a goroutine of its own. Once the Desk is closed, the caller runs it.
func (d *Desk) Aside(run func()) {
	end, err := d.Begin()
	if err != nil {
		run()

		return
	}

	go func() {
		defer end()
		run()
	}()
}

// UntilClosed returns a context made from parent. It ends [Grace] after the Desk is closed.
func (d *Desk) UntilClosed(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	stop := context.AfterFunc(d.ctx, func() { EndSoon(ctx, cancel) })

	return ctx, func() {
		stop()
		cancel()
	}
}

// Grace is how long a request goes on whose caller has left, or whose Locker is closed.
const Grace = time.Second

// EndSoon cancels ctx after [Grace]. Its timer ends with ctx, if that ends before.
func EndSoon(ctx context.Context, cancel context.CancelFunc) {
	timer := time.AfterFunc(Grace, cancel)
	context.AfterFunc(ctx, func() { timer.Stop() })
}

// Term is for how long a grant can be believed in.
func (d *Desk) Term(res store.Result, ttl time.Duration) keepalive.Term {
	return keepalive.Term{Sent: res.Sent, TTL: ttl, Margin: d.Margin(ttl)}.Shown(res.Lease())
}

// Names names the requests of one Locker. Each has a name of its own, by which a grant is found whose reply
// was lost.
type Names struct {
	// Locker is what the names have in common.
	Locker string

	requests atomic.Uint64
}

// Next is the name of the next request.
func (n *Names) Next() string {
	var room [128]byte // most names need one allocation

	name := append(append(room[:0], n.Locker...), '.')

	return string(strconv.AppendUint(name, n.requests.Add(1), 36))
}

// NextRefresh is Next for a request that refreshes a lock. The history tells it from a hand-over.
func (n *Names) NextRefresh() string { return n.Next() + store.RefreshMark }

// LockerOf is the name of the Locker that made a request of this name.
func LockerOf(request string) string {
	return request[:max(strings.LastIndexByte(request, '.'), 0)]
}
