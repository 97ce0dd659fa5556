package pglockergocron

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-co-op/gocron/v2"

	"github.com/ismurov/pglocker"
)

// Elector is a gocron.Elector: the leader of an election runs all jobs of the scheduler. It is safe for concurrent use.
type Elector struct {
	election *pglocker.Election
	clocks   time.Duration
	stop     context.CancelFunc
	// ended is closed when the candidate has left the election, after err was set.
	ended chan struct{}
	err   error

	mu sync.Mutex
	// leading is the present term, nil while this process doesn't lead. mu guards it, and that nothing is added to
	// its tasks afterwards.
	leading *term
	// lastTick is when IsLeader last returned nil. mu guards it: no tick begins after leading was set to nil.
	lastTick time.Time
}

// term is one in which this process leads.
type term struct {
	ctx   context.Context
	tasks sync.WaitGroup
}

var _ gocron.Elector = (*Elector)(nil)

// StartElector takes part in the election until [Elector.Stop], or until ctx ends: it calls [pglocker.Election.Run],
// which the caller must not do.
//
// clocks must be longer than the clocks of the machines differ. A leader that leaves keeps the leadership until clocks
// after its last tick. By then that tick has come by the next leader's clock, too, and doesn't run a second time. At or
// below zero nothing is kept.
func StartElector(ctx context.Context, election *pglocker.Election, clocks time.Duration) *Elector {
	running, stop := context.WithCancel(ctx)
	e := &Elector{election: election, clocks: clocks, stop: stop, ended: make(chan struct{})}

	go func() {
		defer close(e.ended)

		e.err = election.Run(running, e.lead)
	}()

	return e
}

func (e *Elector) lead(ctx context.Context, _ pglocker.Term) error {
	t := &term{ctx: ctx}
	e.set(t)

	<-ctx.Done()

	lastTick := e.set(nil)
	t.tasks.Wait()

	if lost := context.Cause(ctx); !errors.Is(lost, pglocker.ErrLockLost) { // else another may lead already
		time.Sleep(time.Until(lastTick.Add(e.clocks)))
	}

	return context.Cause(ctx)
}

// set sets the present term, and returns when the last tick began.
func (e *Elector) set(t *term) (lastTick time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()

	e.leading = t

	return e.lastTick
}

// begin returns the present term, for one more task. It is nil if this process doesn't lead.
func (e *Elector) begin(ctx context.Context) *term {
	e.mu.Lock()
	defer e.mu.Unlock()

	// In a process that was paused for longer than its lease, the term's context may not have ended yet.
	if e.leading == nil || e.election.IsLeader(ctx) != nil {
		return nil
	}

	e.leading.tasks.Add(1)

	return e.leading
}

// IsLeader returns nil while this process leads, and else an error that matches [pglocker.ErrNotLeader]. gocron calls
// it at each tick. It doesn't ask the database: see [pglocker.Election.IsLeader]. From when on it returns nil, a function
// of [Elector.Task] runs. Each nil counts as a tick (see [StartElector]). If the candidate has left the election, the
// error says why.
func (e *Elector) IsLeader(ctx context.Context) error {
	err := e.tick(ctx)
	if err == nil {
		return nil
	}

	select {
	case <-e.ended:
		return errors.Join(err, e.err)
	default:
		return err
	}
}

// tick remembers that a tick begins, if this process leads.
func (e *Elector) tick(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()

	err := e.election.IsLeader(ctx)

	switch {
	case err != nil:
	case e.leading == nil: // elected, and not told yet
		err = pglocker.ErrNotLeader
	default:
		e.lastTick = time.Now()
	}

	return err
}

// Stop leaves the election, and returns when that is done: another can lead then. It waits for functions of
// [Elector.Task], whose contexts end at once, and for what is left of clocks since the last tick ([StartElector]). Shut the
// scheduler down before, or other jobs go on beside those of the next leader.
//
// If ctx ends before, the error matches its. The process leaves the election nevertheless, when that is over. Until then
// no other can lead. Stop may be called again, to wait for longer. So don't pass a context that the
// shutdown has cancelled: Stop wouldn't wait.
//
// Otherwise Stop returns nil, or what made the candidate leave the election before, or [pglocker.ErrNotReleased].
func (e *Elector) Stop(ctx context.Context) error {
	e.stop()

	select {
	case <-e.ended:
	case <-ctx.Done():
		select {
		case <-e.ended: // select takes either
		default:
			return fmt.Errorf("pglockergocron: leaving the election: %w", ctx.Err())
		}
	}

	if errors.Is(e.err, context.Canceled) && !errors.Is(e.err, pglocker.ErrNotReleased) {
		return nil
	}

	return e.err
}

// Task returns a function for gocron.NewTask that runs fn. fn's context ends when this process doesn't lead any more,
// with the cause that [pglocker.Election.Run] names, and with the job's context. The leader's lock is in the context:
// see [pglocker.Guard]. The leadership isn't released before fn has returned; after a loss another may lead already.
//
// The function returns fn's error, joined with that of the loss if the leadership was lost while fn ran. It returns
// [pglocker.ErrNotLeader], and doesn't call fn, if this process doesn't lead.
func (e *Elector) Task(fn func(ctx context.Context) error) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		t := e.begin(ctx)
		if t == nil {
			return pglocker.ErrNotLeader
		}
		defer t.tasks.Done()

		return runUnder(t.ctx, ctx, fn)
	}
}
