package workload

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/stats"
)

// coldLimit is how long a cold process may take.
const coldLimit = 30 * time.Second

// Cold is W11: processes that connect, take a lock, release it and end, one after the other.
func (b *Bench) Cold(ctx context.Context) error {
	names := []string{contender.NamePglocker, contender.NamePglockerLock, contender.NameFloor}

	return b.ownTable(ctx, "cold", len(names), func(table contender.Table) error {
		var entries []entry

		for i, name := range names {
			key := result.Key{Workload: "W11", Contender: name}
			j := job{
				Role: "cold", URL: b.Postgres.URL(), Contender: name, Table: table, LockID: contender.ID(i), Limit: coldLimit,
			}
			entries = append(entries, entry{name: name, run: func(ctx context.Context) error { return b.cold(ctx, key, j) }})
		}

		return interleave(ctx, b.Plan.ColdRounds, entries)
	})
}

// coldRun is what a cold process tells: how long it took from before it connected until its lock was released, and
// how many statements it sent.
type coldRun struct {
	Took       time.Duration
	Statements int64
}

func (b *Bench) cold(ctx context.Context, key result.Key, j job) error {
	var (
		took, whole []time.Duration
		statements  int64
	)

	for range b.Plan.ColdProcesses {
		within, cancel := context.WithTimeout(ctx, coldLimit)
		began := time.Now()
		told := 0

		err := runChild(within, j, nil, func(r coldRun) {
			took = append(took, r.Took)
			statements += r.Statements
			told++
		})
		whole = append(whole, time.Since(began))

		cancel()

		if err == nil && told != 1 {
			err = fmt.Errorf("bench: a cold process told its time %d times", told)
		}

		if err != nil {
			return err
		}
	}

	var elapsed time.Duration
	for _, d := range whole {
		elapsed += d
	}

	slices.Sort(took)
	slices.Sort(whole)

	p50, process := stats.Percentile(took, 0.5), stats.Percentile(whole, 0.5)
	each := float64(statements) / float64(len(took))

	b.Log.Add(result.Round{Key: key, N: len(took), Elapsed: elapsed, Metrics: []result.Metric{
		{Unit: "p50-ns", Value: float64(p50)},
		{Unit: "process-p50-ns", Value: float64(process)},
		{Unit: "statements/process", Value: each},
	}})
	b.Say("%-58s p50 %9v   of the process %9v   %.1f statements", key, p50.Round(time.Microsecond),
		process.Round(time.Microsecond), each)

	return nil
}

// coldChild is such a process. That of the program itself to start is the same for all contenders, and doesn't count.
func coldChild(ctx context.Context, j job, _ io.Reader, out *json.Encoder) (err error) {
	var statements atomic.Int64

	began := time.Now()

	client, err := contender.OpenAt(ctx, j.URL, j.Contender, j.Table,
		contender.Options{Statements: func(string) { statements.Add(1) }})
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, client.Close()) }()

	release, err := client.TryAcquire(ctx, j.LockID)
	if err != nil {
		return err
	}

	if err := release(ctx); err != nil {
		return err
	}

	return out.Encode(coldRun{Took: time.Since(began), Statements: statements.Load()})
}
