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

// clients are the processes of W3's waiters, each with connections of its own.
const clients = 4

func Waiters(n int) string { return fmt.Sprintf("waiters=%d", n) }

// HandOver is W3: goroutines in four clients wait for one lock, and a holder releases it at
// once. Only a grant to another waiter is a hand-over: a waiter that polls seldom is
// granted the lock many times in a row while the others sleep.
func (b *Bench) HandOver(ctx context.Context) error {
	contenders := b.only(contender.NamePglockerLock, contender.NameFloor, contender.NameAdvisory, contender.NameRedislock, contender.NameEtcd)

	for _, waiters := range b.Plan.Waiters {
		var entries []entry

		for _, c := range contenders {
			poll, err := b.tunePoll(ctx, c, waiters)
			if err != nil {
				return err
			}

			entries = append(entries, entry{name: c.Name(), run: func(ctx context.Context) error {
				key := result.Key{Workload: "W3", Params: Waiters(waiters), Contender: c.Name()}

				return b.handOver(ctx, key, c, waiters, poll, b.Plan.HandOverSlice)
			}})
		}

		if err := interleave(ctx, b.Plan.HandOverRounds, entries); err != nil {
			return err
		}
	}

	return nil
}

// polls are the pauses that are tried for contenders that poll. Long ones cost hand-overs,
// short ones all of the machine.
var polls = []time.Duration{250 * time.Microsecond, time.Millisecond, 4 * time.Millisecond}

// PollKey is the key in Chosen of the pause between polls.
func PollKey(name string, waiters int) string {
	return fmt.Sprintf("%s with %d waiters", name, waiters)
}

func (b *Bench) tunePoll(ctx context.Context, c contender.Contender, waiters int) (time.Duration, error) {
	if c.Name() != contender.NameFloor && c.Name() != contender.NameRedislock {
		return 0, nil
	}

	var (
		best  int
		poll  time.Duration
		slice = b.Plan.TuneSlice
	)

	for _, candidate := range polls {
		turns, err := b.handOvers(ctx, c, waiters, candidate, slice)
		if err != nil {
			return 0, err
		}

		b.Say("  trying %s with a pause of %v: %.0f hand-overs/s", c.Name(), candidate, float64(turns.n)/turns.elapsed.Seconds())

		if turns.n > best {
			best, poll = turns.n, candidate
		}
	}

	b.Chosen[PollKey(c.Name(), waiters)] = contender.Options{Poll: poll}

	return poll, nil
}

type turns struct {
	n       int // hand-overs
	elapsed time.Duration
	// gaps are sorted, and last from the call of a release to the return of the next grant.
	gaps     []time.Duration
	fairness float64 // turns of the unluckiest waiter over those of the luckiest
	all      int64   // hand-overs, those before and after the measured time too
}

func (b *Bench) handOver(ctx context.Context, key result.Key, c contender.Contender, waiters int, poll, slice time.Duration) error {
	var (
		before, after server.Counters
		err           error
	)

	if c.OnPostgres() {
		if before, err = b.Postgres.Counters(ctx); err != nil {
			return err
		}
	}

	t, err := b.handOvers(ctx, c, waiters, poll, slice)
	if err != nil {
		return err
	}

	metrics := []result.Metric{
		{Unit: "handovers/s", Value: float64(t.n) / t.elapsed.Seconds()},
		{Unit: "gap-p50-ns", Value: float64(stats.Percentile(t.gaps, 0.5))},
		{Unit: "gap-p99-ns", Value: float64(stats.Percentile(t.gaps, 0.99))},
		{Unit: "fairness", Value: t.fairness},
	}

	if c.OnPostgres() {
		if after, err = b.Postgres.Counters(ctx); err != nil {
			return err
		}

		metrics = append(metrics, costs(before, after, t.all, "handover")...)
	}

	b.Log.Add(result.Round{Key: key, N: t.n, Elapsed: t.elapsed, Metrics: metrics})
	b.Say("%-58s %10.0f hand-overs/s   gap p50 %9v   p99 %9v   fairness %.2f", key, metrics[0].Value,
		time.Duration(metrics[1].Value).Round(time.Microsecond), time.Duration(metrics[2].Value).Round(time.Microsecond), t.fairness)

	return nil
}

func (b *Bench) handOvers(ctx context.Context, c contender.Contender, waiters int, poll, slice time.Duration) (t turns, err error) {
	each := waiters / clients
	o := contender.Options{Pool: min(8, each), Waiters: each, Poll: poll}

	var (
		group sync.WaitGroup
		stop  atomic.Bool
		// released is when the lock was last released, in nanoseconds since origin.
		released atomic.Int64
		origin   = time.Now()
		counts   = make([]int, waiters)
		// locked guards the rest and t: a bug might let two hold the lock at once.
		locked sync.Mutex
		began  time.Time
		last   = -1 // the waiter that had it last
	)

	work, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	opened, closeAll, err := openAll(ctx, c, o, clients)
	if err != nil {
		return t, err
	}

	defer func() { err = errors.Join(err, closeAll()) }()

	warm := origin.Add(b.Plan.PairWarmUp)

	for w := range waiters {
		group.Go(func() {
			client := opened[w%clients]

			// A waiter that is still in line at the end has a turn that doesn't count.
			for !stop.Load() {
				release, err := client.Acquire(work, contender.ID(0))
				if err != nil {
					cancel(err)

					return
				}

				now := time.Now()

				locked.Lock()

				another := w != last
				last = w

				if another {
					t.all++
				}

				switch {
				case now.Before(warm) || stop.Load():
				case began.IsZero():
					began = now
				default:
					t.elapsed = now.Sub(began)
					counts[w]++

					if another {
						t.n++
						t.gaps = append(t.gaps, now.Sub(origin)-time.Duration(released.Load()))
					}
				}

				locked.Unlock()
				released.Store(int64(time.Since(origin)))

				if err := release(work); err != nil {
					cancel(err)

					return
				}
			}
		})
	}

	select {
	case <-work.Done():
	case <-time.After(b.Plan.PairWarmUp + slice):
	}

	stop.Store(true)
	group.Wait()

	if err := context.Cause(work); err != nil {
		return t, err
	}

	slices.Sort(t.gaps)
	t.elapsed = max(t.elapsed, time.Nanosecond)

	if most := slices.Max(counts); most > 0 {
		t.fairness = float64(slices.Min(counts)) / float64(most)
	}

	return t, nil
}
