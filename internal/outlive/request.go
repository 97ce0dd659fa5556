// Package outlive sends requests that outlive their callers: a grant that arrives late must be returned.
package outlive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// Grace is how long a request goes on whose caller has left.
const Grace = time.Second

// Request is under way until its answer is received or its caller leaves.
type Request[T any] struct {
	answers chan T
	left    chan struct{}
	sent    func() bool
	ctx     context.Context
	cancel  context.CancelFunc
}

// Send makes a request on a goroutine of its own, with ctx's values, for limit at most, if that isn't 0. What
// still waits for a connection when ctx ends is not sent. ended is called at the end of the goroutine. late
// is called with the answer if the caller has left.
func Send[T any](ctx context.Context, limit time.Duration, ended func(), ask func(context.Context) T, late func(T)) *Request[T] {
	r := &Request[T]{answers: make(chan T), left: make(chan struct{})}
	r.ctx, r.sent = store.Watch(store.Outlive(ctx))

	if limit > 0 {
		r.ctx, r.cancel = context.WithTimeout(r.ctx, limit)
	} else {
		r.ctx, r.cancel = context.WithCancel(r.ctx)
	}

	go func() {
		defer ended()
		defer r.cancel()

		answer := ask(r.ctx)

		select {
		case r.answers <- answer:
		case <-r.left:
			late(answer)
		}
	}()

	return r
}

// Answer yields the answer, unless the caller has left.
func (r *Request[T]) Answer() <-chan T { return r.answers }

// Sent reports whether something was sent for the request.
func (r *Request[T]) Sent() bool { return r.sent() }

// Within returns the answer if it comes within d. Otherwise the caller leaves.
func (r *Request[T]) Within(d time.Duration) (answer T, ok bool) {
	timer := time.NewTimer(d)
	defer timer.Stop()

	select {
	case answer = <-r.answers:
		return answer, true
	case <-timer.C:
		r.Leave()

		return answer, false
	}
}

// Leave says that nobody waits for the answer any more. It is called once.
func (r *Request[T]) Leave() {
	close(r.left)
	EndSoon(r.ctx, r.cancel)
}

// EndSoon cancels ctx after Grace. Its timer ends with ctx, if that ends before.
func EndSoon(ctx context.Context, cancel context.CancelFunc) {
	timer := time.AfterFunc(Grace, cancel)
	context.AfterFunc(ctx, func() { timer.Stop() })
}

// Err is the error of a context that has ended, with the cause that its owner gave.
func Err(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		err = fmt.Errorf("%w: %w", err, cause)
	}

	return err
}
