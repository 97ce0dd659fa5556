package context

import (
	"context"
	"errors"
	"log"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/ismurov/pglocker"
)

// Nothing in this file is a mistake.

type logger struct{}

func (logger) Info(ctx context.Context, text string) error { return work(ctx) }

func (j *jobs) user(ctx context.Context) (string, error) {
	name, ok := ctx.Value(key{}).(string)
	if !ok {
		return "", errors.New("nobody")
	}

	return name, errors.Join(ctx.Err(), j.known(ctx, name))
}

func (j *jobs) known(ctx context.Context, name string) error {
	if deadline, ok := ctx.Deadline(); ok && name == "" {
		return errors.New(deadline.String())
	}

	return nil
}

func bothContexts(ctx, lockCtx context.Context) error { return errors.Join(work(ctx), work(lockCtx)) }

func underLock(ctx context.Context, lock *pglocker.Lock) error {
	return bothContexts(ctx, lock.Context())
}

type runner struct{ ctx context.Context }

func (r *runner) run(ctx context.Context) error { return bothContexts(ctx, r.ctx) }

func (j *jobs) givenBoth(ctx context.Context) error {
	return j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		lock, _ := pglocker.FromContext(lockCtx)
		kept := &runner{lockCtx}

		later := &runner{}
		later.ctx = lockCtx

		name, err := j.user(ctx) // reads a value

		return errors.Join(err, bothContexts(ctx, lockCtx), underLock(ctx, lock), kept.run(ctx), later.run(ctx),
			logger{}.Info(ctx, name), (&runner{lockCtx}).run(ctx))
	})
}

func (j *jobs) anotherLock(ctx context.Context, lock *pglocker.Lock) error {
	return j.locker.Do(ctx, "a", time.Minute, time.Second, func(context.Context) error {
		return underLock(ctx, lock)
	})
}

func (j *jobs) shadowed(ctx context.Context) error {
	return j.locker.Do(ctx, "a", time.Minute, time.Second, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()

		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return work(ctx) })

		return errors.Join(group.Wait(), work(ctx))
	})
}

func (j *jobs) assigned(ctx context.Context) error {
	return j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		ctx = lockCtx

		return work(ctx)
	})
}

func (j *jobs) unrelated(request, ctx context.Context) error {
	return j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		return errors.Join(work(request), work(lockCtx)) // what Do was given isn't made from it
	})
}

// The work goes by a context that ends with both.
func (j *jobs) merged(ctx context.Context) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		defer context.AfterFunc(lockCtx, stop)()

		return work(ctx)
	})

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		both, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)

		go func() {
			<-lockCtx.Done()
			cancel(context.Cause(lockCtx))
		}()

		return work(both)
	})

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		group, both := errgroup.WithContext(ctx)
		group.Go(func() error { return work(lockCtx) })
		group.Go(func() error { return work(both) })

		return group.Wait()
	})

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		watch := lockCtx.Done()

		return until(ctx, watch)
	})
}

func until(ctx context.Context, end <-chan struct{}) error {
	select {
	case <-end:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// What comes after the lock's end can't go by its context.
func (j *jobs) afterTheEnd(ctx context.Context) {
	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		<-lockCtx.Done()

		return work(ctx)
	})

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		for lockCtx.Err() == nil {
			if err := work(lockCtx); err != nil {
				return errors.Join(err, work(ctx))
			}
		}

		return work(ctx)
	})

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		select {
		case <-lockCtx.Done():
			return work(ctx)
		case <-j.wake:
		}

		switch err := work(lockCtx); {
		case errors.Is(err, pglocker.ErrLockLost):
			return work(ctx)
		case err != nil:
			return err
		}

		if lockCtx.Err() != nil {
			return work(ctx)
		}

		return nil
	})
}

func (j *jobs) cleanUp(ctx context.Context) error { return work(ctx) }

func (j *jobs) toCleanUp(ctx context.Context) {
	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		tidy := func() { _ = work(ctx) }
		defer tidy()
		defer func() { _ = work(ctx) }()

		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()

		once := sync.OnceFunc(tidy)
		time.AfterFunc(time.Second, func() { _ = work(ctx) })

		return errors.Join(work(lockCtx), work(stop), j.cleanUp(ctx), func() error { once(); return nil }())
	})
}

func (j *jobs) nested(ctx context.Context) error {
	return j.locker.Do(ctx, "a", time.Minute, time.Second, func(first context.Context) error {
		return j.locker.Do(first, "b", time.Minute, time.Second, func(second context.Context) error {
			return work(second)
		})
	})
}

// A context that isn't looked at, by functions that needn't.
func (j *jobs) ignoredOnPurpose(ctx context.Context, lock *pglocker.Lock) {
	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(context.Context) error {
		time.Sleep(10 * time.Millisecond)
		<-time.After(time.Second)
		log.Print("done")

		return nil
	})

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(context.Context) error {
		results := make(chan string, len(j.wake))
		results <- "a"
		close(results)

		for result := range results {
			log.Print(result)
		}

		return nil
	})

	// By another lock.
	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(context.Context) error { return work(lock.Context()) })

	_ = j.leader.Run(ctx, func(context.Context, pglocker.Term) error {
		for j.leader.IsLeader(ctx) == nil {
			time.Sleep(time.Minute)
		}

		return nil
	})

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, (&runner{lock.Context()}).ignores)
}

func (r *runner) ignores(context.Context) error {
	select {
	case <-r.ctx.Done():
	case <-time.After(time.Minute):
	}

	return work(r.ctx)
}
