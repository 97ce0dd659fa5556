package pglockergocron

import (
	"context"
	"errors"

	"github.com/ismurov/pglocker"
)

// runUnder runs fn under held, the context of a lock, until the job's context ends.
func runUnder(held, job context.Context, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancelCause(held)
	defer cancel(nil)
	defer context.AfterFunc(job, func() { cancel(context.Cause(job)) })()

	err := fn(ctx)

	lost := context.Cause(held)
	if !errors.Is(lost, pglocker.ErrLockLost) || errors.Is(err, pglocker.ErrLockLost) {
		return err
	}

	return errors.Join(err, lost)
}
