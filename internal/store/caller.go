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

// ErrNoConnection is the cause of a context of [ConnectWithin] that has ended.
var ErrNoConnection = errors.New("pglocker: the pool gave no connection in time")

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

// Watch returns a context for a request, and a function that reports whether it was sent.
func Watch(ctx context.Context) (watched context.Context, sent func() bool) {
	p := new(atomic.Bool)

	return context.WithValue(ctx, progressKey{}, p), p.Load
}

// ConnectWithin returns a context for a request. It ends after d, with cause [ErrNoConnection],
// unless the request has been sent.
func ConnectWithin(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, sent := Watch(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(d, func() {
		if !sent() {
			cancel(ErrNoConnection)
		}
	})

	return ctx, func() {
		timer.Stop()
		cancel(context.Canceled)
	}
}
