package workload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/stats"
)

// The parameters of W9.
const (
	// Permits of a semaphore are wanted by PermitWaiters goroutines in four clients.
	Permits       = 10
	PermitWaiters = 100
	// Readers share a read-write lock with one writer.
	Readers = 64
)

// AllIDs are how many locks are taken at once.
var AllIDs = []int{10, 100}

// The contenders of W9.
const (
	NameAtOnce   = "at-once"
	NameOneByOne = "one-by-one"
)

func Several(ids int) string { return fmt.Sprintf("ids=%d", ids) }

// SharedPermits and SharedLock are the parameters of its other parts.
var (
	SharedPermits = fmt.Sprintf("permits=%d/waiters=%d", Permits, PermitWaiters)
	SharedLock    = fmt.Sprintf("readers=%d/writers=1", Readers)
)

// Recipes is W9: several locks at once and one by one; a semaphore, beside slots on Redis; a
// read-write lock; pairs with a history; Prune and Locks on a large table.
func (b *Bench) Recipes(ctx context.Context) error {
	for _, part := range []func(context.Context) error{b.several, b.permits, b.readWrite, b.history, b.prune, b.list} {
		if err := part(ctx); err != nil {
			return err
		}
	}

	return nil
}

// withLocker runs f with a client of pglocker, a pool of its own included.
func (b *Bench) withLocker(ctx context.Context, table contender.Table, pool int, f func(*pglocker.Locker) error) error {
	locker, closing, err := contender.NewLocker(ctx, b.Postgres.URL(), table, pool)
	if err != nil {
		return err
	}

	return errors.Join(f(locker), closing())
}

func (b *Bench) several(ctx context.Context) error {
	for _, ids := range AllIDs {
		var entries []entry

		for _, name := range []string{NameAtOnce, NameOneByOne} {
			key := result.Key{Workload: "W9", Params: Several(ids), Contender: name}
			entries = append(entries, entry{name: key.String(), run: func(ctx context.Context) error {
				return b.withLocker(ctx, b.own, 4, func(locker *pglocker.Locker) error {
					take := atOnce
					if name == NameOneByOne {
						take = oneByOne
					}

					return b.repeat(ctx, key, func(n int) error { return take(ctx, locker, idsFrom(n*ids, ids)) })
				})
			}})
		}

		if err := interleave(ctx, b.Plan.RecipeRounds, entries); err != nil {
			return err
		}
	}

	return nil
}

func idsFrom(first, n int) []string {
	ids := make([]string, n)
	for i := range ids {
		ids[i] = contender.ID((first + i) % severalOf)
	}

	return ids
}

// severalOf is how many locks are taken in turn.
const severalOf = 1000

func atOnce(ctx context.Context, locker *pglocker.Locker, ids []string) error {
	locks, err := locker.TryLockAll(ctx, ids, contender.TTL)
	if err != nil {
		return err
	}

	return locks.Unlock(ctx)
}

func oneByOne(ctx context.Context, locker *pglocker.Locker, ids []string) (err error) {
	for _, id := range ids {
		lock, lockErr := locker.TryLock(ctx, id, contender.TTL)
		if lockErr != nil {
			return errors.Join(err, lockErr)
		}

		defer func() { err = errors.Join(err, lock.Unlock(ctx)) }()
	}

	return nil
}

// repeat measures what one goroutine does again and again.
func (b *Bench) repeat(ctx context.Context, key result.Key, do func(n int) error) error {
	n := 0
	for warm := time.Now().Add(b.Plan.PairWarmUp); time.Now().Before(warm); n++ {
		if err := do(n); err != nil {
			return err
		}
	}

	var took []time.Duration

	began := time.Now()

	for last := began; last.Sub(began) < b.Plan.RecipeSlice; n++ {
		if err := do(n); err != nil {
			return err
		}

		now := time.Now()
		took = append(took, now.Sub(last))
		last = now
	}

	elapsed := time.Since(began)

	slices.Sort(took)

	p50 := stats.Percentile(took, 0.5)
	b.Log.Add(result.Round{Key: key, N: len(took), Elapsed: elapsed, Metrics: []result.Metric{
		{Unit: "p50-ns", Value: float64(p50)},
		{Unit: "p99-ns", Value: float64(stats.Percentile(took, 0.99))},
	}})
	b.Say("%-58s %10.0f /s   p50 %9v", key, float64(len(took))/elapsed.Seconds(), p50.Round(time.Microsecond))

	return ctx.Err()
}

// permits has goroutines in four clients wait for permits, and release them after a millisecond.
func (b *Bench) permits(ctx context.Context) error {
	contenders := []contender.Contender{&contender.Semaphore{Server: b.Postgres, Table: b.own, Permits: Permits}}
	if b.Redis != nil {
		contenders = append(contenders, &contender.RedisSlots{Server: b.Redis, Slots: Permits})
	}

	var entries []entry

	for _, c := range contenders {
		key := result.Key{Workload: "W9", Params: SharedPermits, Contender: c.Name()}
		entries = append(entries, entry{name: key.String(), run: func(ctx context.Context) error { return b.sharePermits(ctx, key, c) }})
	}

	return interleave(ctx, b.Plan.RecipeRounds, entries)
}

const (
	// permitTenure is how long a permit is held.
	permitTenure = time.Millisecond
	slotPoll     = time.Millisecond
)

func (b *Bench) sharePermits(ctx context.Context, key result.Key, c contender.Contender) (err error) {
	each := PermitWaiters / clients

	opened, closeAll, err := openAll(ctx, c, contender.Options{Pool: 8, Waiters: each, Poll: slotPoll}, clients)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, closeAll()) }()

	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var (
		group    sync.WaitGroup
		measured atomic.Bool
		counts   = make([]int, PermitWaiters)
		held     atomic.Int64
	)

	until, end := context.WithTimeout(work, b.Plan.PairWarmUp+b.Plan.PermitSlice)
	defer end()

	for w := range counts {
		group.Go(func() {
			for until.Err() == nil {
				release, err := opened[w%clients].Acquire(until, contender.ID(0))
				if err != nil {
					if until.Err() == nil {
						cancel(err)
					}

					return
				}

				if held.Add(1) > Permits {
					cancel(errTooMany)
				}

				time.Sleep(permitTenure)
				held.Add(-1)

				if err := release(work); err != nil {
					cancel(err)

					return
				}

				if measured.Load() && until.Err() == nil {
					counts[w]++
				}
			}
		})
	}

	time.Sleep(b.Plan.PairWarmUp)
	measured.Store(true)

	began := time.Now()

	<-until.Done()

	elapsed := time.Since(began)

	group.Wait()

	if err := context.Cause(work); err != nil {
		return err
	}

	all := 0
	for _, n := range counts {
		all += n
	}

	fairness := float64(slices.Min(counts)) / float64(max(slices.Max(counts), 1))

	b.Log.Add(result.Round{Key: key, N: all, Elapsed: elapsed, Metrics: []result.Metric{
		{Unit: "permits/s", Value: float64(all) / elapsed.Seconds()},
		{Unit: "fairness", Value: fairness},
	}})
	b.Say("%-58s %10.0f permits/s   fairness %.2f", key, float64(all)/elapsed.Seconds(), fairness)

	return nil
}

var errTooMany = errors.New("bench: more permits are held than there are")

// readWrite has readers and a writer share a lock.
func (b *Bench) readWrite(ctx context.Context) error {
	key := result.Key{Workload: "W9", Params: SharedLock, Contender: contender.NamePglocker}

	return interleave(ctx, b.Plan.RecipeRounds, []entry{{name: key.String(), run: func(ctx context.Context) error {
		return b.withLocker(ctx, b.own, 8, func(locker *pglocker.Locker) error { return b.shareLock(ctx, key, locker) })
	}}})
}

func (b *Bench) shareLock(ctx context.Context, key result.Key, locker *pglocker.Locker) error {
	lock, err := locker.NewRWLock("bench")
	if err != nil {
		return err
	}

	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	until, end := context.WithTimeout(work, b.Plan.PairWarmUp+b.Plan.PermitSlice)
	defer end()

	var (
		group         sync.WaitGroup
		reads, writes atomic.Int64
	)

	for n := range Readers + 1 {
		take, count := lock.RLock, &reads
		if n == 0 {
			take, count = lock.Lock, &writes
		}

		group.Go(func() {
			for until.Err() == nil {
				held, err := take(until, contender.TTL)
				if err == nil {
					time.Sleep(permitTenure)
					err = held.Unlock(work)
				} else if until.Err() != nil {
					return
				}

				if err != nil {
					cancel(err)

					return
				}

				count.Add(1)
			}
		})
	}

	began := time.Now()

	group.Wait()

	elapsed := time.Since(began)
	if err := context.Cause(work); err != nil {
		return err
	}

	per := func(n int64) float64 { return float64(n) / elapsed.Seconds() }

	b.Log.Add(result.Round{Key: key, N: int(reads.Load() + writes.Load()), Elapsed: elapsed, Metrics: []result.Metric{
		{Unit: "reads/s", Value: per(reads.Load())},
		{Unit: "writes/s", Value: per(writes.Load())},
	}})
	b.Say("%-58s %10.0f reads/s   %.0f writes/s", key, per(reads.Load()), per(writes.Load()))

	return nil
}
