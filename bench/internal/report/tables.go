package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/format"
	"github.com/ismurov/pglocker/bench/internal/reach"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/stats"
)

// nothing is the cell of a missing number.
const nothing = "-"

type column struct {
	head string
	unit string
	show func(float64) string
	// over is the contender by whose median all medians are divided, unless it is empty.
	over string
	// spread adds the spread of the rounds.
	spread bool
}

// table has all series of a workload. Without paramsHead it has no column of parameters.
func table(log *result.Log, workload, paramsHead string, columns []column) string {
	return tableFor(log, workload, paramsHead, columns, log.Contenders(workload)...)
}

// tableFor is table for some contenders of a workload. A series of which no column was measured has no row.
func tableFor(log *result.Log, workload, paramsHead string, columns []column, contenders ...string) string {
	heads := []string{}
	if paramsHead != "" {
		heads = append(heads, paramsHead)
	}

	heads = append(heads, "contender")
	for _, c := range columns {
		heads = append(heads, c.head)
	}

	var rows [][]string

	for _, params := range log.Params(workload) {
		for _, name := range contenders {
			key := result.Key{Workload: workload, Params: params, Contender: name}
			if !slices.ContainsFunc(columns, func(c column) bool { return len(log.Values(key, c.unit)) > 0 }) {
				continue
			}

			row := []string{}
			if paramsHead != "" {
				row = append(row, values(params))
			}

			row = append(row, name)
			for _, c := range columns {
				row = append(row, cell(log, key, c))
			}

			rows = append(rows, row)
		}
	}

	if len(rows) == 0 {
		return "Not measured in this run.\n"
	}

	return markdown(heads, rows)
}

func cell(log *result.Log, key result.Key, c column) string {
	all := log.Values(key, c.unit)
	median := stats.Median(all)

	if math.IsNaN(median) {
		return nothing
	}

	if c.over != "" {
		other := key
		other.Contender = c.over

		ratio := median / log.Median(other, c.unit)
		if math.IsNaN(ratio) || math.IsInf(ratio, 0) {
			return nothing
		}

		return times(ratio)
	}

	text := c.show(median)
	if c.spread && len(all) > 1 {
		text += fmt.Sprintf(" ± %.0f %%", stats.Spread(all)*100)
	}

	return text
}

// values turns "locks=10000/goroutines=1" into "10,000, 1".
func values(params string) string {
	var all []string

	for part := range strings.SplitSeq(params, "/") {
		_, value, _ := strings.Cut(part, "=")

		if n, err := strconv.Atoi(value); err == nil {
			value = format.Thousands(n)
		}

		all = append(all, value)
	}

	return strings.Join(all, ", ")
}

func times(ratio float64) string { return format.Figures(ratio) + " ×" }

func markdown(heads []string, rows [][]string) string {
	var b strings.Builder

	line := func(cells []string) { b.WriteString("| " + strings.Join(cells, " | ") + " |\n") }

	line(heads)
	b.WriteString(strings.Repeat("|---", len(heads)) + "|\n")

	for _, row := range rows {
		line(row)
	}

	return b.String()
}

var (
	pairColumns = []column{
		{head: "pairs/s", unit: "pairs/s", show: format.Count, spread: true},
		{head: "over the floor", unit: "pairs/s", over: contender.NameFloor},
		{head: "p50", unit: "p50-ns", show: format.Duration, spread: true},
		{head: "over the floor", unit: "p50-ns", over: contender.NameFloor},
		{head: "p99", unit: "p99-ns", show: format.Duration},
		{head: "over the floor", unit: "p99-ns", over: contender.NameFloor},
	}
	costColumns = []column{
		{head: "client CPU s / 100,000", unit: "client-cpu-s/100k-pairs", show: format.Figures},
		{head: "client allocations / pair", unit: "allocs/pair", show: format.Figures},
		{head: "server CPU s / 100,000", unit: "server-cpu-s/100k-pairs", show: format.Figures},
		{head: "statements / pair", unit: "statements/pair", show: format.Figures},
		{head: "WAL bytes / pair", unit: "WAL-B/pair", show: format.Figures},
		{head: "fsyncs / pair", unit: "fsyncs/pair", show: format.Figures},
	}
	handOverColumns = []column{
		{head: "hand-overs/s", unit: "handovers/s", show: format.Count, spread: true},
		{head: "over etcd", unit: "handovers/s", over: contender.NameEtcd},
		{head: "gap p50", unit: "gap-p50-ns", show: format.Duration},
		{head: "over etcd", unit: "gap-p50-ns", over: contender.NameEtcd},
		{head: "gap p99", unit: "gap-p99-ns", show: format.Duration},
		{head: "least / most turns", unit: "fairness", show: format.Figures},
		{head: "statements / hand-over", unit: "statements/handover", show: format.Figures},
		{head: "fsyncs / hand-over", unit: "fsyncs/handover", show: format.Figures},
	}
	heldColumns = []column{
		{head: "statements/s", unit: "statements/s", show: format.Figures},
		{head: "client, % of a core", unit: "client-core-%", show: format.Figures},
		{head: "server, % of a core", unit: "server-core-%", show: format.Figures},
		{head: "connections", unit: "connections", show: format.Count},
		{head: "WAL bytes/s", unit: "WAL-B/s", show: format.Count},
	}
	tableColumns = []column{
		{head: "pairs/s", unit: "pairs/s", show: format.Count, spread: true},
		{head: "p50", unit: "p50-ns", show: format.Duration, spread: true},
		{head: "p99", unit: "p99-ns", show: format.Duration},
		{head: "WAL bytes / pair", unit: "WAL-B/pair", show: format.Figures},
	}
	freshColumns = []column{
		{head: "pairs/s", unit: "pairs/s", show: format.Count, spread: true},
		{head: "over the floor", unit: "pairs/s", over: contender.NameFloor},
		{head: "p50", unit: "p50-ns", show: format.Duration, spread: true},
		{head: "p99", unit: "p99-ns", show: format.Duration},
	}
	churnColumns = []column{
		{head: "pairs/s", unit: "pairs/s", show: format.Count},
		{head: "before", unit: "bytes-before", show: format.Kilobytes},
		{head: "after", unit: "bytes-after", show: format.Kilobytes},
		{head: "after VACUUM FULL", unit: "bytes-smallest", show: format.Kilobytes},
		{head: "HOT updates, %", unit: "HOT-%", show: format.Figures},
	}
	failedColumns = []column{
		{head: "attempts/s", unit: "attempts/s", show: format.Count, spread: true},
		{head: "WAL bytes / attempt", unit: "WAL-B/attempt", show: format.Figures},
		{head: "WAL bytes while idle", unit: "WAL-B-idle", show: format.Count},
	}
)

var (
	severalColumns = []column{
		{head: "p50", unit: "p50-ns", show: format.Duration, spread: true},
		{head: "p99", unit: "p99-ns", show: format.Duration},
	}
	permitColumns = []column{
		{head: "permits/s", unit: "permits/s", show: format.Count, spread: true},
		{head: "least / most turns", unit: "fairness", show: format.Figures},
	}
	readColumns = []column{
		{head: "reads/s", unit: "reads/s", show: format.Count, spread: true},
		{head: "writes/s", unit: "writes/s", show: format.Count},
	}
	coldColumns = []column{
		{head: "p50", unit: "p50-ns", show: format.Duration, spread: true},
		{head: "over the floor", unit: "p50-ns", over: contender.NameFloor},
		{head: "whole process, p50", unit: "process-p50-ns", show: format.Duration},
		{head: "statements", unit: "statements/process", show: format.Figures},
	}
	queueColumns = []column{
		{head: "hand-overs/s", unit: "handovers/s", show: format.Figures},
		{head: "gap p50", unit: "gap-p50-ns", show: format.Duration},
		{head: "gap p99", unit: "gap-p99-ns", show: format.Duration},
		{head: "statements / hand-over", unit: "statements/handover", show: format.Figures},
		{head: "connections / waiting process", unit: "connections/waiter", show: format.Figures},
		{head: "connections in all", unit: "connections", show: format.Count},
		{head: "server, % of a core", unit: "server-core-%", show: format.Figures},
	}
	careColumns = []column{
		{head: "rows/s", unit: "rows/s", show: format.Count},
		{head: "pairs/s beside it", unit: "pairs/s", show: format.Count},
		{head: "p50", unit: "p50-ns", show: format.Duration},
		{head: "longest", unit: "longest-ns", show: format.Duration},
		{head: "growth of the heap", unit: "heap-growth-B", show: format.Kilobytes},
	}
)

func reachTable(reaches []reach.Reach) string {
	var rows [][]string

	for _, r := range reaches {
		state := string(r.State)
		if r.State == reach.NotReached {
			state = "**" + state + "**"
		}

		rows = append(rows, []string{r.What, r.Goal, r.Measured, state})
	}

	return markdown([]string{"what", "target", "measured", ""}, rows)
}
