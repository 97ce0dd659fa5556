package pglocker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// acquireFirst is acquire for callers who go on to wait or to hold the lock. On a
// table without owners a grant whose reply was not waited for can't be found again,
// so there the request outlives a caller that leaves, for a moment, and a grant
// that it still brings is passed on.
func (l *Locker) acquireFirst(ctx context.Context, lockID string, ttl time.Duration) (store.Result, error) {
	if l.store.Full() || ctx.Err() != nil {
		return l.acquire(ctx, lockID, ttl)
	}

	end, err := l.begin()
	if err != nil {
		return store.Result{}, err
	}

	type reply struct {
		res store.Result
		err error
	}

	var (
		replies            = make(chan reply)
		left               = make(chan struct{})
		requestCtx, cancel = context.WithCancel(store.Outlive(ctx))
	)

	requestCtx, sent := store.Watch(requestCtx)

	go func() {
		defer end()
		defer cancel()

		res, err := l.acquire(requestCtx, lockID, ttl)

		select {
		case replies <- reply{res, err}:
		case <-left:
			if err == nil {
				l.passOn(lockID, res, ttl)
			}
		}
	}()

	select {
	case r := <-replies:
		return r.res, r.err
	case <-ctx.Done():
		// A request that waits for a connection ends with ctx as well, and its error says
		// what it waited for.
		if !sent() {
			select {
			case r := <-replies:
				return r.res, r.err
			case <-time.After(answerWithin):
			}
		}

		close(left)
		cancelSoon(requestCtx, cancel)

		return store.Result{}, fmt.Errorf("%w: %w", ErrUnknownOutcome, ended(ctx))
	}
}

// cancelSoon cancels a request whose caller has left after giveUpGrace, unless the request,
// and with it ctx, ends before.
func cancelSoon(ctx context.Context, cancel context.CancelFunc) {
	timer := time.AfterFunc(giveUpGrace, cancel)
	context.AfterFunc(ctx, func() { timer.Stop() })
}

// ended is the error of a context that has ended, with the cause that its owner gave.
func ended(ctx context.Context) error {
	err := ctx.Err()
	if cause := context.Cause(ctx); !errors.Is(cause, err) {
		err = fmt.Errorf("%w: %w", err, cause)
	}

	return err
}
