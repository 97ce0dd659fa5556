package workload

import (
	"context"
	"slices"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
)

// Alone is W1: one goroutine acquires and releases.
func (b *Bench) Alone(ctx context.Context) error {
	return b.distinct(ctx, "W1", "", 1)
}

// Together is W2: many goroutines do, each with a lock of its own.
func (b *Bench) Together(ctx context.Context) error {
	if err := b.tune(ctx); err != nil {
		return err
	}

	for _, n := range b.Plan.Goroutines {
		if err := b.distinct(ctx, "W2", Goroutines(n), n); err != nil {
			return err
		}
	}

	return nil
}

// compared are the contenders in W1 and W2 that a reach depends on.
var compared = []string{contender.NamePglocker, contender.NameFloor, contender.NameRedislock, contender.NameBare}

func (b *Bench) distinct(ctx context.Context, workload, params string, goroutines int) error {
	var entries []entry

	for _, c := range b.contenders {
		key := result.Key{Workload: workload, Params: params, Contender: c.Name()}
		e := entry{name: c.Name(), run: func(ctx context.Context) error {
			return b.measure(ctx, key, c, b.options(c, goroutines), b.load(goroutines))
		}}

		if !slices.Contains(compared, c.Name()) {
			e.rounds = b.Plan.OtherRounds
		}

		entries = append(entries, e)
	}

	if b.pgbench != nil {
		key := result.Key{Workload: workload, Params: params, Contender: contender.NamePgbench}
		run := func(ctx context.Context) error { return b.runPgbench(ctx, key, min(goroutines, PgbenchClients)) }
		entries = append(entries, entry{name: contender.NamePgbench, run: run, rounds: b.Plan.OtherRounds})
	}

	return interleave(ctx, b.Plan.Rounds, entries)
}

// crowd is the number of goroutines from which a pair of the slowest contender takes about
// a second, and so a measurement takes longer.
const crowd = 4000

func (b *Bench) load(goroutines int) load {
	warmUp, slice := b.Plan.PairWarmUp, b.Plan.PairSlice
	if goroutines >= crowd {
		warmUp, slice = 5*warmUp, 5*slice/2
	}

	return load{
		goroutines: goroutines,
		warmUp:     warmUp,
		slice:      slice,
		lock:       ownLock,
	}
}

// PgbenchClients is the most clients of pgbench. Each is a connection, and more don't make
// two cores faster.
const PgbenchClients = 64

func (b *Bench) runPgbench(ctx context.Context, key result.Key, clients int) error {
	before, err := b.Postgres.Counters(ctx)
	if err != nil {
		return err
	}

	run, err := b.pgbench.Run(ctx, clients, b.Plan.PairSlice)
	if err != nil {
		return err
	}

	after, err := b.Postgres.Counters(ctx)
	if err != nil {
		return err
	}

	_, hasCPU := b.Postgres.CPU()
	b.record(key, sample{
		pairs:     run.Pairs,
		elapsed:   run.Elapsed,
		latencies: run.Latencies,
		client:    run.ClientCPU,
		server:    run.ServerCPU,
		hasCPU:    hasCPU,
	}, costs(before, after, int64(run.Pairs), "pair"))

	return nil
}

// poolSizes are tried for each contender before W2. pglocker needs few connections, since
// one statement takes many requests.
var poolSizes = map[string][]int{
	contender.NamePglocker:  {4, 8, 16},
	contender.NameFloor:     {8, 16, 32, 64},
	contender.NameAdvisory:  {8, 16, 32, 64},
	contender.NameRedislock: {8, 32, 128},
}

const tuneGoroutines = 256

// tune chooses for each contender the size of the pool with the most pairs per second.
func (b *Bench) tune(ctx context.Context) error {
	for _, c := range b.contenders {
		best := 0.0

		for _, size := range poolSizes[c.Name()] {
			l := b.load(tuneGoroutines)
			l.slice = b.Plan.TuneSlice

			s, _, err := b.once(ctx, c, contender.Options{Pool: size}, l)
			if err != nil {
				return err
			}

			rate := float64(s.pairs) / s.elapsed.Seconds()
			b.Say("  trying %s with %d connections: %.0f pairs/s", c.Name(), size, rate)

			if rate > best {
				best = rate
				b.Chosen[c.Name()] = contender.Options{Pool: size}
			}
		}
	}

	if o, ok := b.Chosen[contender.NamePglocker]; ok {
		b.Chosen[contender.NamePglockerLock] = o
	}

	return nil
}

// options are those of a client with that many goroutines.
func (b *Bench) options(c contender.Contender, goroutines int) contender.Options {
	o, ok := b.Chosen[c.Name()]
	if !ok {
		o.Pool = 16
	}

	// pglocker has one statement of each kind under way, and acquires while it releases.
	// The others use as many connections as goroutines.
	o.Pool = min(o.Pool, goroutines)

	return o
}
