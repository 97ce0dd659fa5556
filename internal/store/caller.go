package store

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

type callerKey struct{}

// Outlive returns a context with ctx's values that doesn't end with ctx, for requests whose answer
// is wanted even if their caller leaves. A request that still waits for a connection then is not
// sent: those of callers that have left would pile up in the pool. See also package outlive.
func Outlive(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), callerKey{}, ctx)
}

// callerOf is the context that ends when nobody waits for the connection any more.
func callerOf(ctx context.Context) context.Context {
	if caller, ok := ctx.Value(callerKey{}).(context.Context); ok && ctx.Err() == nil {
		return caller
	}

	return ctx
}

// connect takes a connection, for a caller that is still there. The caller calls done with it.
func (s *Store) connect(ctx context.Context) (c conn, done func(), err error) {
	waiting, caller := ctx, callerOf(ctx)

	if caller != ctx {
		var cancel context.CancelFunc

		waiting, cancel = context.WithCancel(ctx)
		defer cancel()

		stop := context.AfterFunc(caller, cancel)
		defer stop()
	}

	c, done, err = s.handle.take(waiting)

	switch {
	case err == nil && caller != ctx && caller.Err() != nil: // it was free before cancel was called
		done()

		return nil, nil, s.ended(caller)
	case err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
		err = s.ended(ctx)
	case err != nil && ctx.Err() == nil && caller.Err() != nil:
		err = s.ended(caller)
	}

	return c, done, err
}

type progressKey struct{}

// progressOf says whether a request was sent. It is nil for a request that nobody watches.
func progressOf(ctx context.Context) *atomic.Bool {
	p, _ := ctx.Value(progressKey{}).(*atomic.Bool)

	return p
}

func sending(p *atomic.Bool) {
	if p != nil {
		p.Store(true)
	}
}

// watched is a context for a request, which says that it was sent.
type watched struct {
	context.Context
	sent atomic.Bool
}

func (w *watched) Value(key any) any {
	if key == (progressKey{}) {
		return &w.sent
	}

	return w.Context.Value(key)
}

// Watch returns a context for a request, and a function that reports whether it was sent.
func Watch(ctx context.Context) (_ context.Context, sent func() bool) {
	w := &watched{Context: ctx}

	return w, w.sent.Load
}

// Attempt is a context for a request that is given some time to be sent, and some to be answered.
type Attempt struct {
	watched
	cancel context.CancelFunc
	timer  *time.Timer
	unsent atomic.Bool
}

// NewAttempt returns a context that ends after most, and after connect if the request hasn't been sent by then. The
// caller calls End.
func NewAttempt(ctx context.Context, connect, most time.Duration) *Attempt {
	a := new(Attempt)
	a.Context, a.cancel = context.WithTimeout(ctx, most)
	a.timer = time.AfterFunc(connect, func() {
		if !a.sent.Load() {
			a.unsent.Store(true)
			a.cancel()
		}
	})

	return a
}

// Unsent reports whether the context ended because the request hadn't been sent.
func (a *Attempt) Unsent() bool { return a.unsent.Load() }

// End ends the context.
func (a *Attempt) End() {
	a.timer.Stop()
	a.cancel()
}
