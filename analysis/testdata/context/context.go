// Package context has functions that work under a lock, by the right context and by a wrong one.
package context

import (
	"context"
	"database/sql"
	"log/slog"
	"time"

	"github.com/ismurov/pglocker"
)

type jobs struct {
	db     *sql.DB
	locker *pglocker.Locker
	sem    *pglocker.Semaphore
	leader *pglocker.Election
	wake   chan string
}

// work waits until its context ends.
func work(ctx context.Context) error {
	<-ctx.Done()

	return ctx.Err()
}

func (j *jobs) outside(ctx context.Context) error {
	err := j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		return work(ctx) // want `ctx is from outside of Do's function: it doesn't end when the lock is lost`
	})
	if err != nil {
		return err
	}

	// Its own context isn't named, and the outer one is used.
	err = j.sem.Do(ctx, time.Minute, time.Second, func(context.Context) error {
		rows, err := j.db.QueryContext(ctx, "SELECT 1") // want `ctx is from outside of Do's function`
		if err != nil {
			return err
		}

		return rows.Close()
	})
	if err != nil {
		return err
	}

	// A context made from an outer one doesn't end with the lock either.
	err = j.leader.Run(ctx, func(leading context.Context, _ pglocker.Term) error {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()

		return work(short) // want `short is made from one that is from outside of Run's function`
	})
	if err != nil {
		return err
	}

	// Two locks: the work is done under both, and goes by one.
	return j.locker.Do(ctx, "a", time.Minute, time.Second, func(first context.Context) error {
		return j.locker.DoAll(first, []string{"b", "c"}, time.Minute, time.Second, func(context.Context) error {
			return work(first) // want `first is from outside of DoAll's function`
		})
	})
}

func (j *jobs) derived(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()

	return j.locker.Do(limited, "a", time.Minute, time.Second, func(context.Context) error {
		if err := work(limited); err != nil { // want `limited is from outside`
			return err
		}

		return work(ctx) // want `ctx is from outside`
	})
}

// Whatever is done beside the mistake, the mistake is found.
func (j *jobs) nevertheless(ctx context.Context) error {
	limited := context.WithValue(ctx, key{}, "a")

	return j.locker.Do(limited, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		if err := work(ctx); err != nil { // want `ctx is from outside`
			return err
		}

		n, err := size(lockCtx)
		if err != nil {
			return work(ctx) // after an error
		}

		for lockCtx.Err() == nil {
			select {
			case <-lockCtx.Done():
				return context.Cause(lockCtx)
			case <-j.wake:
				if err := workOn(ctx, n); err != nil { // want `ctx is from outside`
					return err
				}
			}
		}

		return nil
	})
}

func (j *jobs) inClosures(ctx context.Context) error {
	limited := context.WithValue(ctx, key{}, "a")

	return j.locker.Do(limited, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		lock, err := j.locker.Lock(ctx, "b", time.Minute) // want `ctx is from outside`
		if err != nil {
			return err
		}
		defer lock.Unlock(ctx)

		func() {
			_ = work(context.WithValue(limited, key{}, "b")) // want `limited is made from one that is from outside`
		}()

		return each(lockCtx, func() error {
			return j.indirect(ctx) // want `ctx is from outside`
		})
	})
}

type key struct{}

func size(ctx context.Context) (int, error) { return 0, work(ctx) }

func workOn(ctx context.Context, _ int) error { return work(ctx) }

func each(_ context.Context, f func() error) error { return f() }

func (j *jobs) indirect(ctx context.Context) error { return size2(ctx) }

func size2(ctx context.Context) error {
	_, err := size(ctx)

	return err
}

func (j *jobs) onPurpose(ctx context.Context, logger *slog.Logger) error {
	other := context.Background()

	return j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error {
		logger.InfoContext(ctx, "begins")

		if ctx.Err() != nil { // why did it end?
			logger.Info("shutdown", "cause", context.Cause(ctx))
		}

		lock, err := j.locker.TryLock(lockCtx, "b", time.Minute)
		if err != nil {
			return err
		}

		defer work(ctx)   // to clean up
		go work(ctx)      // may outlast the lock
		_ = work(other)   // not what Do was given
		_ = work(lockCtx) // its own
		_, _ = pglocker.Token(ctx)

		return lock.Unlock(context.WithoutCancel(ctx))
	})
}

func (j *jobs) ignored(ctx context.Context) {
	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(_ context.Context) error { // want `Do's function ignores its context, which ends when the lock is lost, but calls Exec, not ExecContext`
		_, err := j.db.Exec("SELECT 1")

		return err
	})

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(lockCtx context.Context) error { // want `but calls work with another`
		return work(context.Background())
	})

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(context.Context) error { // want `but calls time.Sleep`
		time.Sleep(time.Hour)

		return nil
	})

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(context.Context) error { // want `but waits for a channel`
		for range j.wake {
		}

		return nil
	})

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, j.method)
	_ = j.locker.Do(ctx, "b", time.Minute, time.Second, j.method) // told once
	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, function)

	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(context.Context) error { // want `but waits in a select`
		select {
		case <-ctx.Done():
		case <-j.wake:
		}

		return nil
	})

	// Too short to be worth a look at the context.
	_ = j.locker.Do(ctx, "a", time.Minute, time.Second, func(context.Context) error {
		slog.Info("now")

		select {
		case j.wake <- "now":
		default:
		}

		return nil
	})

	// Not under a lock.
	func(context.Context) { time.Sleep(time.Second) }(ctx)
}

func (j *jobs) method(context.Context) error { // want `but waits in a select`
	select {
	case <-j.wake:
	case <-time.After(time.Second):
	}

	return nil
}

func function(context.Context) error { // want `but waits for a channel`
	<-time.After(time.Minute)

	return nil
}
