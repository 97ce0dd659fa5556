package workload

import (
	"context"
	"errors"
	"fmt"
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
	// all counts the pairs outside of the slice too, for counters of the server that can't
	// be cut.
	all int64
}

const drainTimeout = 10 * time.Second

// pairs runs a load. Only pairs that ended within the slice count as done. The latencies
// are those of all pairs that ended after its beginning, or the slowest would be missing.
func pairs(ctx context.Context, c contender.Contender, client contender.Client, l load) (sample, error) {
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

	wait(l.slice)

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

var errDrained = errors.New("bench: pairs under way at the end took too long")

func (b *Bench) measure(ctx context.Context, key result.Key, c contender.Contender, o contender.Options, l load) error {
	s, metrics, err := b.once(ctx, c, o, l)
	if err != nil {
		return err
	}

	b.record(key, s, metrics)

	return nil
}

// once runs a load with a client of its own, and reads what it cost the server.
func (b *Bench) once(ctx context.Context, c contender.Contender, o contender.Options, l load) (s sample, metrics []result.Metric, err error) {
	var before server.Counters

	if c.OnPostgres() {
		if before, err = b.Postgres.Counters(ctx); err != nil {
			return s, nil, err
		}
	}

	client, err := c.Open(ctx, o)
	if err != nil {
		return s, nil, err
	}

	s, err = pairs(ctx, c, client, l)
	if err = errors.Join(err, client.Close()); err != nil || !c.OnPostgres() {
		return s, nil, err
	}

	after, err := b.Postgres.Counters(ctx)

	return s, costs(before, after, s.all, "pair"), err
}

func costs(before, after server.Counters, n int64, operation string) []result.Metric {
	per := func(a, b int64) float64 { return float64(b-a) / float64(max(n, 1)) }
	metrics := []result.Metric{
		{Unit: "statements/" + operation, Value: per(before.Transactions, after.Transactions)},
		{Unit: "WAL-B/" + operation, Value: per(before.WAL, after.WAL)},
	}

	if after.Syncs >= 0 {
		metrics = append(metrics, result.Metric{Unit: "fsyncs/" + operation, Value: per(before.Syncs, after.Syncs)})
	}

	return metrics
}

func (b *Bench) record(key result.Key, s sample, more []result.Metric) {
	metrics := []result.Metric{
		{Unit: "pairs/s", Value: float64(s.pairs) / s.elapsed.Seconds()},
		{Unit: "p50-ns", Value: float64(stats.Percentile(s.latencies, 0.5))},
		{Unit: "p99-ns", Value: float64(stats.Percentile(s.latencies, 0.99))},
	}

	if s.hasCPU && s.pairs > 0 {
		per := func(d time.Duration) float64 { return d.Seconds() / float64(s.pairs) * 100_000 }
		metrics = append(metrics,
			result.Metric{Unit: "client-cpu-s/100k-pairs", Value: per(s.client)},
			result.Metric{Unit: "server-cpu-s/100k-pairs", Value: per(s.server)})
	}

	b.Log.Add(result.Round{Key: key, N: s.pairs, Elapsed: s.elapsed, Metrics: append(metrics, more...)})
	b.Say("%-58s %10.0f pairs/s   p50 %9v   p99 %9v", key, metrics[0].Value,
		time.Duration(metrics[1].Value).Round(time.Microsecond), time.Duration(metrics[2].Value).Round(time.Microsecond))
}

// ownLock gives each goroutine one lock, the first of the table: the same locks, side by
// side in the same way, however large the table is.
func ownLock(goroutine, _ int) int { return goroutine }

func Goroutines(n int) string { return fmt.Sprintf("goroutines=%d", n) }
