package store

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"time"
)

type callerKey struct{}

// Outlive returns a context with ctx's values that doesn't end with ctx, for
// requests whose answer is wanted even if their caller leaves. What still waits for
// a connection then is not sent, so that leavers don't pile up in the pool, before
// those who stay.
func Outlive(ctx context.Context) context.Context {
	return context.WithValue(context.WithoutCancel(ctx), callerKey{}, ctx)
}

// stay returns a context that doesn't tell of one caller's leaving, for a statement
// that serves several.
func stay(ctx context.Context) context.Context {
	return context.WithValue(ctx, callerKey{}, nil)
}

// connect takes a connection from the pool, for a caller who is still there.
func connect(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	return waitFor(ctx, db.Conn, func(conn *sql.Conn) { _ = conn.Close() }) // back to the pool
}

// connect takes a connection, for a caller who is still there. The caller calls done with
// it.
func (s *Store) connect(ctx context.Context) (conn *sql.Conn, done func(), err error) {
	type taken struct {
		conn *sql.Conn
		done func()
	}

	got, err := waitFor(ctx, func(ctx context.Context) (t taken, err error) {
		t.conn, t.done, err = s.handle.take(ctx)

		return t, err
	}, func(t taken) { t.done() })
	if caller := callerOf(ctx); err != nil && caller.Err() != nil && errors.Is(err, caller.Err()) {
		err = s.ended(caller)
	}

	return got.conn, got.done, err
}

// callerOf is the context that ends when nobody waits for the connection any more.
func callerOf(ctx context.Context) context.Context {
	if caller, ok := ctx.Value(callerKey{}).(context.Context); ok && ctx.Err() == nil {
		return caller
	}

	return ctx
}

// waitFor takes something for a caller who is still there.
func waitFor[T any](ctx context.Context, take func(context.Context) (T, error), back func(T)) (T, error) {
	caller, ok := ctx.Value(callerKey{}).(context.Context)
	if !ok {
		return take(ctx)
	}

	waiting, cancel := context.WithCancel(ctx)
	defer cancel()

	stop := context.AfterFunc(caller, cancel)
	defer stop()

	got, err := take(waiting)
	if err == nil && caller.Err() != nil { // it was free before cancel was called
		back(got)

		var none T

		return none, caller.Err()
	}

	if err != nil && ctx.Err() == nil && caller.Err() != nil {
		err = caller.Err()
	}

	return got, err
}

// ErrNoConnection is the cause of a context of [ConnectWithin] that has ended.
var ErrNoConnection = errors.New("pglocker: the pool gave no connection in time")

type progressKey struct{}

// progress says whether a request was sent; nil: nobody wants to know.
type progress struct{ sent atomic.Bool }

func progressOf(ctx context.Context) *progress {
	p, _ := ctx.Value(progressKey{}).(*progress)

	return p
}

func (p *progress) send() {
	if p != nil {
		p.sent.Store(true)
	}
}

// Watch returns a context for a request, and a function that reports whether something
// was sent for it.
func Watch(ctx context.Context) (watched context.Context, sent func() bool) {
	p := new(progress)

	return context.WithValue(ctx, progressKey{}, p), p.sent.Load
}

// ConnectWithin returns a context for a request that is given up, with cause
// [ErrNoConnection], unless it is on its way after d.
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
