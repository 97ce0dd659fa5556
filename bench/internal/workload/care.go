package workload

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/stats"
)

// The contenders of W9 on a large table, and with a history.
const (
	NamePrune          = "Prune"
	NameIdle           = "no-Prune"
	NameLocks          = "Locks"
	NameWithHistory    = "with-history"
	NameWithoutHistory = "without-history"
)

// Rows are the parameters of W9 on a table of that many rows.
func Rows(rows int) string { return fmt.Sprintf("rows=%d", rows) }

// Recorded are those of its pairs with and without a history.
const Recorded = "history"

// ownTable runs f with a new table of that many locks, which it drops.
func (b *Bench) ownTable(ctx context.Context, name string, locks int, f func(contender.Table) error) (err error) {
	table, err := contender.NewTable(ctx, b.Postgres.URL(), name, locks)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, b.drop(ctx, table)) }()

	return f(table)
}

// drop drops a table, also after ctx has ended.
func (b *Bench) drop(ctx context.Context, table contender.Table) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()

	return b.Postgres.Exec(ctx, "DROP TABLE public."+string(table))
}

// pruneTraffic is how many goroutines take and release locks while Prune runs.
const pruneTraffic = 8

// prune removes all idle rows of a table, under traffic. Before that, the same traffic is measured alone, for
// a while.
func (b *Bench) prune(ctx context.Context) error {
	rows := b.Plan.PruneRows
	if rows == 0 {
		return nil
	}

	return b.ownTable(ctx, "pruned", rows, func(table contender.Table) error {
		return b.withLocker(ctx, table, pruneTraffic, func(locker *pglocker.Locker) error {
			key := result.Key{Workload: "W9", Params: Rows(rows), Contender: NameIdle}

			if _, err := b.beside(ctx, key, locker, func(ctx context.Context) (int, error) {
				select {
				case <-time.After(b.Plan.PermitSlice):
				case <-ctx.Done():
				}

				return 0, ctx.Err()
			}); err != nil {
				return err
			}

			key.Contender = NamePrune

			removed, err := b.beside(ctx, key, locker, func(ctx context.Context) (int, error) {
				removed, err := locker.Prune(ctx, time.Hour)

				return int(removed), err
			})
			if err == nil && removed != rows {
				err = fmt.Errorf("bench: Prune removed %d of %d rows", removed, rows)
			}

			return err
		})
	})
}

// beside measures pairs of locks that nothing removes, while do runs.
func (b *Bench) beside(ctx context.Context, key result.Key, locker *pglocker.Locker, do func(context.Context) (int, error)) (int, error) {
	var (
		mu    sync.Mutex
		took  []time.Duration
		group sync.WaitGroup
	)

	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	stop := make(chan struct{})

	for n := range pruneTraffic {
		id := fmt.Sprintf("in use %d", n)

		group.Go(func() {
			var own []time.Duration

			defer func() {
				mu.Lock()
				took = append(took, own...)
				mu.Unlock()
			}()

			for {
				select {
				case <-stop:
					return
				default:
				}

				began := time.Now()

				lock, err := locker.TryLock(work, id, contender.TTL)
				if err == nil {
					err = lock.Unlock(work)
				}

				if err != nil {
					cancel(err)

					return
				}

				own = append(own, time.Since(began))
			}
		})
	}

	began := time.Now()
	done, err := do(work)
	elapsed := time.Since(began)

	close(stop)
	group.Wait()

	if cause := context.Cause(work); cause != nil {
		err = cause
	}

	if err != nil || len(took) == 0 {
		return done, err
	}

	slices.Sort(took)

	longest := took[len(took)-1]
	b.Log.Add(result.Round{Key: key, N: len(took), Elapsed: elapsed, Metrics: []result.Metric{
		{Unit: "rows/s", Value: float64(done) / elapsed.Seconds()},
		{Unit: "pairs/s", Value: float64(len(took)) / elapsed.Seconds()},
		{Unit: "p50-ns", Value: float64(stats.Percentile(took, 0.5))},
		{Unit: "longest-ns", Value: float64(longest)},
	}})
	b.Say("%-58s %10.0f rows/s   %.0f pairs/s   longest %v", key, float64(done)/elapsed.Seconds(),
		float64(len(took))/elapsed.Seconds(), longest.Round(time.Microsecond))

	return done, nil
}

// heapLooks is how often the heap is measured while all locks are listed.
const heapLooks = 10

// list lists a large table, and measures what the heap has grown by since the first page.
func (b *Bench) list(ctx context.Context) error {
	rows := b.Plan.ListRows
	if rows == 0 {
		return nil
	}

	return b.ownTable(ctx, "listed", rows, func(table contender.Table) error {
		return b.withLocker(ctx, table, 2, func(locker *pglocker.Locker) error {
			var (
				n           int
				first, most uint64
				began       = time.Now()
			)

			for _, err := range locker.Locks(ctx, pglocker.LocksFilter{}) {
				if err != nil {
					return err
				}

				if n%(rows/heapLooks) == 0 {
					heap := heapInUse()
					most = max(most, heap)

					if n == 0 {
						first = heap
					}
				}

				n++
			}

			elapsed := time.Since(began)
			if n < rows {
				return fmt.Errorf("bench: Locks listed %d of %d rows", n, rows)
			}

			key := result.Key{Workload: "W9", Params: Rows(rows), Contender: NameLocks}
			b.Log.Add(result.Round{Key: key, N: n, Elapsed: elapsed, Metrics: []result.Metric{
				{Unit: "rows/s", Value: float64(n) / elapsed.Seconds()},
				{Unit: "heap-growth-B", Value: float64(most - first)},
			}})
			b.Say("%-58s %10.0f rows/s   heap grew by %d kB", key, float64(n)/elapsed.Seconds(), (most-first)/1024)

			return nil
		})
	})
}

// heapInUse is what the heap holds after a collection.
func heapInUse() uint64 {
	runtime.GC()

	var m runtime.MemStats

	runtime.ReadMemStats(&m)

	return m.HeapAlloc
}

// history measures pairs on a table with a history, and on one without.
func (b *Bench) history(ctx context.Context) error {
	return b.ownTable(ctx, "plain", severalOf, func(plain contender.Table) error {
		return b.ownTable(ctx, "recorded", severalOf, func(recorded contender.Table) (err error) {
			if err := b.keepHistory(ctx, recorded); err != nil {
				return err
			}

			defer func() { err = errors.Join(err, b.drop(ctx, recorded+"_history")) }()

			var entries []entry

			for _, c := range []struct {
				name  string
				table contender.Table
			}{{NameWithoutHistory, plain}, {NameWithHistory, recorded}} {
				key := result.Key{Workload: "W9", Params: Recorded, Contender: c.name}
				entries = append(entries, entry{name: key.String(), run: func(ctx context.Context) error {
					return b.withLocker(ctx, c.table, 4, func(locker *pglocker.Locker) error {
						return b.repeat(ctx, key, func(n int) error { return oneByOne(ctx, locker, idsFrom(n, 1)) })
					})
				}})
			}

			return interleave(ctx, b.Plan.RecipeRounds, entries)
		})
	})
}

func (b *Bench) keepHistory(ctx context.Context, table contender.Table) (err error) {
	db, err := sql.Open("pgx", b.Postgres.URL())
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, db.Close()) }()

	return pglocker.MigrateHistory(ctx, db, &pglocker.Config{Scheme: pglocker.PublicScheme, Table: string(table)})
}
