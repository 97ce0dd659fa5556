package workload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/stats"
)

// Processes are the parameters of W12, which is measured from a time after the start of the processes.
func Processes(n int, hold, after time.Duration) string {
	return fmt.Sprintf("processes=%d/hold=%s/after=%s", n, hold, after)
}

const (
	// queueLimit is how long W12 may take beside the measured time.
	queueLimit = 3 * time.Minute
	// oftenSent is how often in a hand-over a statement is sent that is worth a line.
	oftenSent = 0.5
)

// Queue is W12: processes wait for one lock, and each holds it for a while.
func (b *Bench) Queue(ctx context.Context) error {
	n := b.Plan.QueueProcesses
	limit := queueLimit + b.Plan.QueueAfter[len(b.Plan.QueueAfter)-1] + b.Plan.QueueFor

	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()

	return b.ownTable(ctx, "queue", 1, func(table contender.Table) error {
		return b.queue(ctx, n, job{
			Role: "wait", URL: b.Postgres.URL(), Contender: contender.NamePglockerLock, Table: table, LockID: contender.ID(0),
			Hold: b.Plan.QueueHold, Limit: limit,
		})
	})
}

func (b *Bench) queue(ctx context.Context, n int, j job) error {
	q, err := startQueue(ctx, n, j)
	if err != nil {
		return err
	}

	var all []queueMeasured

	for began, after := time.Now(), b.Plan.QueueAfter; len(after) > 0 && err == nil; after = after[1:] {
		if err = sleep(q.ctx, time.Until(began.Add(after[0]))); err != nil {
			err = cmp.Or(context.Cause(q.ctx), err)

			break
		}

		var m queueMeasured

		m, err = b.measureQueue(q)
		all = append(all, m)
	}

	if err := cmp.Or(q.end(), err); err != nil {
		return err
	}

	for i, m := range all {
		key := result.Key{Workload: "W12", Params: Processes(n, j.Hold, b.Plan.QueueAfter[i]), Contender: j.Contender}
		if err := b.recordQueue(key, q.moments, m); err != nil {
			return err
		}
	}

	return nil
}

func (b *Bench) recordQueue(key result.Key, moments []moment, measured queueMeasured) error {
	gaps, err := gapsOf(moments, measured.began, measured.ended)
	if err != nil {
		return err
	}

	span := time.Duration(measured.ended - measured.began)
	each := func(n float64) float64 { return n / float64(len(gaps)) }
	p50, p99 := stats.Percentile(gaps, 0.5), stats.Percentile(gaps, 0.99)
	statements := 0

	for _, sent := range measured.sent {
		statements += sent
	}

	metrics := []result.Metric{
		{Unit: "handovers/s", Value: float64(len(gaps)) / span.Seconds()},
		{Unit: "gap-p50-ns", Value: float64(p50)},
		{Unit: "gap-p99-ns", Value: float64(p99)},
		{Unit: "statements/handover", Value: each(float64(statements))},
		{Unit: "connections/waiter", Value: measured.connections},
		{Unit: "connections", Value: float64(measured.most)},
	}

	if measured.hasCPU {
		metrics = append(metrics, result.Metric{Unit: "server-core-%", Value: measured.server.Seconds() / span.Seconds() * 100})
	}

	b.Log.Add(result.Round{Key: key, N: len(gaps), Elapsed: span, Metrics: metrics})
	b.Say("%-58s %10d hand-overs   gap p50 %9v   p99 %9v   %.1f statements each   %.2f connections a waiter, %d in all", key,
		len(gaps), p50.Round(time.Microsecond), p99.Round(time.Microsecond), each(float64(statements)), measured.connections, measured.most)

	for _, text := range slices.SortedFunc(maps.Keys(measured.sent), func(a, b string) int {
		return cmp.Compare(measured.sent[b], measured.sent[a])
	}) {
		if often := each(float64(measured.sent[text])); often >= oftenSent {
			b.Say("  %8.1f a hand-over: %s", often, text)
		}
	}

	return nil
}

// moment is when the lock was granted, or when its release was called, in nanoseconds since 1970. All processes have
// one clock.
type moment struct {
	At      int64
	Granted bool
}

// gapsOf returns the times from the call of each release to the next grant, sorted. The grant lies between began and
// ended.
func gapsOf(moments []moment, began, ended int64) ([]time.Duration, error) {
	sorted := slices.SortedFunc(slices.Values(moments), func(a, b moment) int { return cmp.Compare(a.At, b.At) })

	var gaps []time.Duration

	for i, m := range sorted {
		if i > 0 && m.Granted == sorted[i-1].Granted {
			return nil, errors.New("bench: two processes held the lock at once, or the clock was set")
		}

		if i > 0 && m.Granted && m.At >= began && m.At < ended {
			gaps = append(gaps, time.Duration(m.At-sorted[i-1].At))
		}
	}

	if len(gaps) == 0 {
		return nil, errors.New("bench: the lock was not handed over")
	}

	slices.Sort(gaps)

	return gaps, nil
}

// queueMeasured is what was measured between two moments, in nanoseconds since 1970.
type queueMeasured struct {
	began, ended int64
	sent         map[string]int // by the beginning of the text
	connections  float64        // of a process that waits
	most         int            // connections of all
	server       time.Duration  // CPU
	hasCPU       bool
}

func (b *Bench) measureQueue(q *queue) (m queueMeasured, err error) {
	before, err := q.count()
	if err != nil {
		return m, err
	}

	m.began = time.Now().UnixNano()
	cpuBefore, _ := b.Postgres.CPU()

	for begun := time.Now(); time.Since(begun) < b.Plan.QueueFor; {
		if err := sleep(q.ctx, b.Plan.QueueFor/10); err != nil {
			return m, cmp.Or(context.Cause(q.ctx), err)
		}

		now, err := b.Postgres.Connections(q.ctx)
		if err != nil {
			return m, err
		}

		m.most = max(m.most, now)
	}

	cpuAfter, ok := b.Postgres.CPU()
	m.server, m.hasCPU = cpuAfter-cpuBefore, ok
	m.ended = time.Now().UnixNano()

	after, err := q.count()
	if err != nil {
		return m, err
	}

	m.sent = make(map[string]int)
	m.connections = waitersConnections(slices.Concat(before, after))

	for _, c := range after {
		for text, n := range c.Sent {
			m.sent[text] += n
		}
	}

	for _, c := range before {
		for text, n := range c.Sent {
			m.sent[text] -= n
		}
	}

	return m, nil
}

// waitersConnections is how many connections a process has on average that doesn't hold the lock.
func waitersConnections(counts []count) float64 {
	var open, waiters int

	for _, c := range counts {
		if !c.Holds {
			open += c.Connections
			waiters++
		}
	}

	return float64(open) / float64(max(waiters, 1))
}
