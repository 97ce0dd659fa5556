// Package reach compares the library's measured ratios with its goals. A ratio is of two
// numbers of one run.
package reach

import (
	"fmt"
	"io"
	"math"
	"text/tabwriter"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/format"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/workload"
)

type Reach struct {
	What string
	// Goal and Measured are texts.
	Goal, Measured string
	State          State
}

type State string

const (
	Reached     State = "reached"
	NotReached  State = "not reached"
	NotMeasured State = "not measured"
)

type builder struct {
	log     *result.Log
	reaches []Reach
}

func Of(log *result.Log, plan workload.Plan) []Reach {
	b := &builder{log: log}

	own, floor := contender.NamePglocker, contender.NameFloor

	b.ratio("W1 p50, over the floor's", atMost, 0.7,
		b.median("W1", "", own, "p50-ns"), b.median("W1", "", floor, "p50-ns"), format.Duration)

	together := []struct {
		goroutines int
		times      float64 // the floor's pairs
	}{{64, 6}, {256, 12}, {1000, 15}}

	for _, c := range together {
		params := workload.Goroutines(c.goroutines)
		b.ratio(fmt.Sprintf("W2 pairs/s, %s, over the floor's", plural(c.goroutines, "goroutine")), atLeast, c.times,
			b.median("W2", params, own, "pairs/s"), b.median("W2", params, floor, "pairs/s"), format.Count)
	}

	for _, n := range plan.Goroutines {
		r, times := above, 1.0
		if n == 64 {
			r, times = atLeast, 1.5
		}

		params := workload.Goroutines(n)
		b.ratio(fmt.Sprintf("W2 pairs/s, %s, over redislock's", plural(n, "goroutine")), r, times,
			b.median("W2", params, own, "pairs/s"), b.median("W2", params, contender.NameRedislock, "pairs/s"), format.Count)
	}

	params := workload.Goroutines(256)
	// Seconds for 100,000 pairs are ten times as many microseconds for one.
	b.value("W2 CPU of the server for a pair, 256 goroutines", atMost, 8, 10*b.median("W2", params, own, "server-cpu-s/100k-pairs"), " µs")
	b.value("W2 CPU of the client for a pair, 256 goroutines", atMost, 4, 10*b.median("W2", params, own, "client-cpu-s/100k-pairs"), " µs")
	b.value("W2 allocations of the client for a pair, 256 goroutines", atMost, 4, b.median("W2", params, own, "allocs/pair"), "")
	b.ratio("W2 p99, 256 goroutines, over the floor's", atMost, 1.0/3,
		b.median("W2", params, own, "p99-ns"), b.median("W2", params, floor, "p99-ns"), format.Duration)

	params = workload.Waiters(16)
	b.value("W3 hand-overs/s, 16 waiters", atLeast, 4500, b.median("W3", params, contender.NamePglockerLock, "handovers/s"), "")
	b.value("W3 gap p50, 16 waiters", atMost, 0.18, b.median("W3", params, contender.NamePglockerLock, "gap-p50-ns")/1e6, " ms")

	for _, n := range plan.Waiters {
		params := workload.Waiters(n)
		b.ratio(fmt.Sprintf("W3 hand-overs/s, %d waiters, over etcd's", n), atLeast, 3,
			b.median("W3", params, contender.NamePglockerLock, "handovers/s"), b.median("W3", params, contender.NameEtcd, "handovers/s"), format.Count)
		b.ratio(fmt.Sprintf("W3 gap p50, %d waiters, over etcd's", n), below, 1,
			b.median("W3", params, contender.NamePglockerLock, "gap-p50-ns"), b.median("W3", params, contender.NameEtcd, "gap-p50-ns"), format.Duration)
	}

	for _, c := range []struct {
		held       int
		statements float64
	}{{10_000, 20}, {100_000, 5}} {
		held := func(unit string) float64 {
			return b.median("W4", workload.Held(c.held), contender.NamePglockerLock, unit)
		}
		of := format.Thousands(c.held) + " held"
		b.value("W4 statements/s, "+of, atMost, c.statements, held("statements/s"), "")
		b.value("W4 connections, "+of, atMost, 2, held("connections"), "")
		b.value("W4 CPU of client and server, "+of, atMost, 5, held("client-core-%")+held("server-core-%"), " % of a core")
	}

	for _, n := range plan.TableGoroutines {
		small, large := workload.Locks(plan.SmallTable, n), workload.Locks(plan.LargeTable, n)
		unit, show := result.NsPerOp, format.Duration

		if n == 1 {
			unit = "p50-ns"
		}

		b.ratio(fmt.Sprintf("W5 time of a pair, %s, %s locks over %s", plural(n, "goroutine"), format.Thousands(plan.LargeTable), format.Thousands(plan.SmallTable)),
			atMost, 1.2, b.median("W5", large, own, unit), b.median("W5", small, own, unit), show)
	}

	churned := func(unit string) float64 {
		return b.median("W6", workload.Churned(plan.ChurnPairs), own, unit)
	}
	pairs := format.Thousands(plan.ChurnPairs) + " pairs"
	b.ratio("W6 size of the table after "+pairs+", over its smallest", atMost, 4,
		churned("bytes-after"), churned("bytes-smallest"), format.Kilobytes)
	b.value("W6 HOT updates of "+pairs, atLeast, 99, churned("HOT-%"), " %")
	b.value("W7 WAL of a failed attempt", atMost, 0, b.median("W7", "", own, "WAL-B/attempt"), " bytes")

	for _, table := range workload.FreshTables {
		for _, n := range plan.FreshGoroutines {
			empty, full := workload.Fresh(table, workload.AnalyzedEmpty, n), workload.Fresh(table, workload.AnalyzedFull, n)
			b.ratio(fmt.Sprintf("W8 time of a pair, %s, %s, analyzed empty over full", table, plural(n, "goroutine")),
				atMost, 1.3, b.median("W8", empty, own, result.NsPerOp), b.median("W8", full, own, result.NsPerOp), format.Duration)
		}
	}

	for _, c := range together {
		params := workload.Fresh(workload.FreshMigrated, workload.AnalyzedFull, c.goroutines)
		b.ratio(fmt.Sprintf("W8 pairs/s, %s, over the floor's", plural(c.goroutines, "goroutine")), atLeast, c.times,
			b.median("W8", params, own, "pairs/s"), b.median("W8", params, floor, "pairs/s"), format.Count)
	}

	for _, c := range []struct {
		ids   int
		times float64
	}{{10, 5}, {100, 30}} {
		params := workload.Several(c.ids)
		b.ratio(fmt.Sprintf("W9 LockAll of %d and Unlock, one by one over at once", c.ids), atLeast, c.times,
			b.median("W9", params, workload.NameOneByOne, result.NsPerOp), b.median("W9", params, workload.NameAtOnce, result.NsPerOp), format.Duration)
	}

	b.value(fmt.Sprintf("W9 fairness of a semaphore of %d permits among %d waiters", workload.Permits, workload.PermitWaiters), atLeast, 0.6,
		b.median("W9", workload.SharedPermits, own, "fairness"), "")

	b.ratio("W9 time of a pair, with a history over without", atMost, 2,
		b.median("W9", workload.Recorded, workload.NameWithHistory, "p50-ns"),
		b.median("W9", workload.Recorded, workload.NameWithoutHistory, "p50-ns"), format.Duration)

	if rows := plan.PruneRows; rows > 0 {
		b.value(fmt.Sprintf("W9 longest pair while Prune removes %s rows", format.Thousands(rows)), atMost, 100,
			b.median("W9", workload.Rows(rows), workload.NamePrune, "longest-ns")/1e6, " ms")
	}

	if rows := plan.ListRows; rows > 0 {
		b.value(fmt.Sprintf("W9 growth of the heap while Locks lists %s rows", format.Thousands(rows)), atMost, 1,
			b.median("W9", workload.Rows(rows), workload.NameLocks, "heap-growth-B")/1e6, " MB")
	}

	params = workload.Clients(64)
	b.ratio("W10 pairs/s, 64 clients of one connection, over the floor's", atLeast, 1.25,
		b.median("W10", params, own, "pairs/s"), b.median("W10", params, floor, "pairs/s"), format.Count)

	for _, name := range []string{own, contender.NamePglockerLock} {
		b.ratio(fmt.Sprintf("W11 a cold process with %s, over the floor's", name), atMost, 1.5,
			b.median("W11", "", name, "p50-ns"), b.median("W11", "", floor, "p50-ns"), format.Duration)
	}

	queue := func(unit string) float64 {
		return b.median("W12", workload.Processes(plan.QueueProcesses, plan.QueueHold, plan.QueueAfter[len(plan.QueueAfter)-1]), contender.NamePglockerLock, unit)
	}
	of := fmt.Sprintf(", %d processes wait", plan.QueueProcesses)
	b.value("W12 statements a hand-over"+of, atMost, 20, queue("statements/handover"), "")
	b.value("W12 gap p50"+of, atMost, 1, queue("gap-p50-ns")/1e6, " ms")
	b.value("W12 connections of a process that waits"+of, atMost, 1, queue("connections/waiter"), "")

	return b.reaches
}

func (b *builder) median(workload, params, contender, unit string) float64 {
	return b.log.Median(result.Key{Workload: workload, Params: params, Contender: contender}, unit)
}

type rule struct {
	text string
	met  func(got, goal float64) bool
}

var (
	atMost  = rule{"at most", func(got, goal float64) bool { return got <= goal }}
	atLeast = rule{"at least", func(got, goal float64) bool { return got >= goal }}
	above   = rule{"more than", func(got, goal float64) bool { return got > goal }}
	below   = rule{"less than", func(got, goal float64) bool { return got < goal }}
)

func (b *builder) ratio(what string, r rule, goal, own, other float64, show func(float64) string) {
	measured := fmt.Sprintf("%.2f times (%s : %s)", own/other, show(own), show(other))
	b.add(what, fmt.Sprintf("%s %.3g times", r.text, goal), r, goal, own/other, measured)
}

func (b *builder) value(what string, r rule, goal, got float64, unit string) {
	b.add(what, fmt.Sprintf("%s %.4g%s", r.text, goal, unit), r, goal, got, fmt.Sprintf("%.4g%s", got, unit))
}

func (b *builder) add(what, goal string, r rule, limit, got float64, measured string) {
	line := Reach{What: what, Goal: goal, Measured: measured, State: NotReached}

	switch {
	case math.IsNaN(got) || math.IsInf(got, 0):
		line.State, line.Measured = NotMeasured, "-"
	case r.met(got, limit):
		line.State = Reached
	}

	b.reaches = append(b.reaches, line)
}

func Print(w io.Writer, reaches []Reach) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range reaches {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", r.State, r.What, r.Goal, r.Measured)
	}

	_ = table.Flush() // a terminal that is gone can't be told so
}

func plural(n int, noun string) string {
	if n == 1 {
		return "one " + noun
	}

	return format.Thousands(n) + " " + noun + "s"
}
