package workload

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
)

const failedGoroutines = 64

// Failed is W7: attempts at locks that another client holds.
func (b *Bench) Failed(ctx context.Context) error {
	// Autovacuum would clean up after other workloads.
	if err := b.Postgres.Exec(ctx, "VACUUM (ANALYZE)"); err != nil {
		return err
	}

	var entries []entry

	for _, c := range b.contenders {
		if c.Name() == contender.NamePglockerLock { // the same statement as without
			continue
		}

		entries = append(entries, entry{name: c.Name(), run: func(ctx context.Context) error { return b.failed(ctx, c) }})
	}

	return interleave(ctx, b.Plan.FailedRounds, entries)
}

func (b *Bench) failed(ctx context.Context, c contender.Contender) (err error) {
	holder, err := c.Open(ctx, contender.Options{Pool: failedGoroutines})
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, holder.Close()) }()

	for i := range failedGoroutines {
		release, err := holder.TryAcquire(ctx, contender.ID(i))
		if err != nil {
			return err
		}

		defer func() { err = errors.Join(err, release(context.WithoutCancel(ctx))) }()
	}

	client, err := c.Open(ctx, b.options(c, failedGoroutines))
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, client.Close()) }()

	// The first read of a page may tidy it up, which is written to the WAL.
	if _, _, err := attempts(ctx, client, b.Plan.PairWarmUp); err != nil {
		return err
	}

	var idle, busy int64

	if c.OnPostgres() {
		if err := b.Postgres.Checkpoint(ctx); err != nil {
			return err
		}

		idle, err = b.walDuring(ctx, func() error { return sleep(ctx, b.Plan.FailedSlice) })
		if err != nil {
			return err
		}
	}

	var (
		n       int
		elapsed time.Duration
	)

	run := func() (err error) {
		n, elapsed, err = attempts(ctx, client, b.Plan.FailedSlice)

		return err
	}

	if !c.OnPostgres() {
		err = run()
	} else {
		busy, err = b.walDuring(ctx, run)
	}

	if err != nil {
		return err
	}

	metrics := []result.Metric{{Unit: "attempts/s", Value: float64(n) / elapsed.Seconds()}}
	if c.OnPostgres() {
		metrics = append(metrics,
			result.Metric{Unit: "WAL-B/attempt", Value: float64(busy) / float64(max(n, 1))},
			result.Metric{Unit: "WAL-B-idle", Value: float64(idle)})
	}

	key := result.Key{Workload: "W7", Contender: c.Name()}
	b.Log.Add(result.Round{Key: key, N: n, Elapsed: elapsed, Metrics: metrics})
	b.Say("%-58s %10.0f attempts/s   %d bytes of WAL, %d while idle", key, metrics[0].Value, busy, idle)

	return nil
}

func (b *Bench) walDuring(ctx context.Context, f func() error) (int64, error) {
	before, err := b.Postgres.WAL(ctx)
	if err != nil {
		return 0, err
	}

	if err := f(); err != nil {
		return 0, err
	}

	after, err := b.Postgres.WAL(ctx)

	return after - before, err
}

var errNotHeld = errors.New("bench: a lock was granted that another client holds")

func attempts(ctx context.Context, client contender.Client, length time.Duration) (int, time.Duration, error) {
	var (
		group sync.WaitGroup
		done  atomic.Int64
		errs  = make([]error, failedGoroutines)
		began = time.Now()
	)

	for g := range failedGoroutines {
		group.Go(func() {
			for time.Since(began) < length {
				_, err := client.TryAcquire(ctx, contender.ID(g))
				if err == nil {
					err = errNotHeld
				}

				if !errors.Is(err, contender.ErrHeld) {
					errs[g] = err

					return
				}

				done.Add(1)
			}
		})
	}

	group.Wait()

	return int(done.Load()), time.Since(began), errors.Join(errs...)
}
