package workload

import (
	"context"
	"errors"
	"fmt"
	"runtime/metrics"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/server"
	"github.com/ismurov/pglocker/bench/internal/stats"
)

// load is what goroutines do that acquire and release locks of their own.
type load struct {
	goroutines    int
	clients       int // which the goroutines share, each with connections of its own; 0: one
	warmUp, slice time.Duration
	// lock is which lock a goroutine takes for the nth time.
	lock func(goroutine, n int) int
	// enough pairs end the load before its slice is over; 0: none do.
	enough int64
}

type sample struct {
	pairs     int
	elapsed   time.Duration
	latencies []time.Duration // sorted
	client    time.Duration   // CPU
	server    time.Duration   // CPU
	hasCPU    bool
	allocs    float64 // of the client, without the benchmark's own
	// all counts the pairs outside of the slice too, for counters of the server that can't
	// be cut.
	all int64
}

const drainTimeout = 10 * time.Second

// ownAllocs is how many objects the benchmark itself allocates for a pair: what releases the lock.
const ownAllocs = 1

// pairs runs a load. Only pairs that ended within the slice count as done. The latencies
// are those of all pairs that ended after its beginning, or the slowest would be missing.
func pairs(ctx context.Context, c contender.Contender, l load, opened ...contender.Client) (sample, error) {
	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	type pair struct{ end, took time.Duration } // end: since origin

	var (
		group  sync.WaitGroup
		stop   atomic.Bool
		done   atomic.Int64
		enough = make(chan struct{})
		each   = make([][]pair, l.goroutines)
		origin = time.Now()
	)

	for g := range l.goroutines {
		client := opened[g%len(opened)]

		group.Go(func() {
			for n := 0; !stop.Load(); n++ {
				began := time.Since(origin)

				release, err := client.TryAcquire(work, contender.ID(l.lock(g, n)))
				if err == nil {
					err = release(work)
				}

				end := time.Since(origin)

				if err != nil {
					cancel(err) // the first one is the cause

					return
				}

				each[g] = append(each[g], pair{end, end - began})

				if done.Add(1) == l.enough {
					close(enough)
				}
			}
		})
	}

	wait := func(d time.Duration) {
		select {
		case <-work.Done():
		case <-enough:
		case <-time.After(d):
		}
	}

	wait(l.warmUp)

	var s sample

	began, own := time.Since(origin), server.OwnCPU()
	before, _ := c.CPU()
	allocated, paired := allocations(), done.Load()

	wait(l.slice)

	// In the same order as before the slice: pairs that end in between count at neither end.
	allocated = allocations() - allocated

	if n := done.Load() - paired; n > 0 {
		s.allocs = float64(allocated)/float64(n) - ownAllocs
	}

	after, ok := c.CPU()
	s.server, s.hasCPU = after-before, ok
	s.client = server.OwnCPU() - own
	ended := time.Since(origin)

	stop.Store(true)

	drained := time.AfterFunc(drainTimeout, func() { cancel(errDrained) })

	group.Wait()
	drained.Stop()

	if err := context.Cause(work); err != nil && !errors.Is(err, errDrained) {
		return s, err
	}

	for _, pairs := range each {
		for _, p := range pairs {
			if p.end < began {
				continue
			}

			s.latencies = append(s.latencies, p.took)

			if p.end <= ended {
				s.pairs++
			}
		}
	}

	slices.Sort(s.latencies)
	s.elapsed = ended - began
	s.all = done.Load()

	return s, nil
}

// allocations is how many objects this process has allocated so far, the tiny ones included.
func allocations() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}, {Name: "/gc/heap/tiny/allocs:objects"}}
	metrics.Read(sample)

	return sample[0].Value.Uint64() + sample[1].Value.Uint64()
}

var errDrained = errors.New("bench: pairs under way at the end took too long")

func (b *Bench) measure(ctx context.Context, key result.Key, c contender.Contender, o contender.Options, l load) error {
	s, measured, err := b.once(ctx, c, o, l)
	if err != nil {
		return err
	}

	b.record(key, s, measured)

	return nil
}

// once runs a load with clients of its own, and reads what it cost the server.
func (b *Bench) once(ctx context.Context, c contender.Contender, o contender.Options, l load) (s sample, measured []result.Metric, err error) {
	var before server.Counters

	if c.OnPostgres() {
		if before, err = b.Postgres.Counters(ctx); err != nil {
			return s, nil, err
		}
	}

	opened, closeAll, err := openAll(ctx, c, o, max(l.clients, 1))
	if err != nil {
		return s, nil, err
	}

	s, err = pairs(ctx, c, l, opened...)
	if err = errors.Join(err, closeAll()); err != nil || !c.OnPostgres() {
		return s, nil, err
	}

	after, err := b.Postgres.Counters(ctx)

	return s, costs(before, after, s.all, "pair"), err
}

func costs(before, after server.Counters, n int64, operation string) []result.Metric {
	per := func(a, b int64) float64 { return float64(b-a) / float64(max(n, 1)) }
	measured := []result.Metric{
		{Unit: "statements/" + operation, Value: per(before.Transactions, after.Transactions)},
		{Unit: "WAL-B/" + operation, Value: per(before.WAL, after.WAL)},
	}

	if after.Syncs >= 0 {
		measured = append(measured, result.Metric{Unit: "fsyncs/" + operation, Value: per(before.Syncs, after.Syncs)})
	}

	return measured
}

func (b *Bench) record(key result.Key, s sample, more []result.Metric) {
	measured := []result.Metric{
		{Unit: "pairs/s", Value: float64(s.pairs) / s.elapsed.Seconds()},
		{Unit: "p50-ns", Value: float64(stats.Percentile(s.latencies, 0.5))},
		{Unit: "p99-ns", Value: float64(stats.Percentile(s.latencies, 0.99))},
	}

	if s.allocs > 0 { // pgbench's aren't known
		measured = append(measured, result.Metric{Unit: "allocs/pair", Value: s.allocs})
	}

	if s.hasCPU && s.pairs > 0 {
		per := func(d time.Duration) float64 { return d.Seconds() / float64(s.pairs) * 100_000 }
		measured = append(measured,
			result.Metric{Unit: "client-cpu-s/100k-pairs", Value: per(s.client)},
			result.Metric{Unit: "server-cpu-s/100k-pairs", Value: per(s.server)})
	}

	b.Log.Add(result.Round{Key: key, N: s.pairs, Elapsed: s.elapsed, Metrics: append(measured, more...)})
	b.Say("%-58s %10.0f pairs/s   p50 %9v   p99 %9v", key, measured[0].Value,
		time.Duration(measured[1].Value).Round(time.Microsecond), time.Duration(measured[2].Value).Round(time.Microsecond))
}

// ownLock gives each goroutine one lock, the first of the table: the same locks, side by
// side in the same way, however large the table is.
func ownLock(goroutine, _ int) int { return goroutine }

func Goroutines(n int) string { return fmt.Sprintf("goroutines=%d", n) }
