// Package result holds the measurements, writes them as lines that Go's benchmark tools
// read, and looks medians up.
package result

import (
	"fmt"
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker/bench/internal/stats"
)

// Key names a series: a workload, its parameters, and the contender.
type Key struct {
	Workload string
	// Params is part of the benchmark's name: "goroutines=256".
	Params    string
	Contender string
}

func (k Key) String() string {
	parts := []string{"Benchmark" + k.Workload}
	if k.Params != "" {
		parts = append(parts, k.Params)
	}

	return strings.Join(append(parts, "contender="+k.Contender), "/")
}

type Metric struct {
	Unit  string
	Value float64
}

type Round struct {
	Key
	N       int
	Elapsed time.Duration
	Metrics []Metric
}

// NsPerOp is the unit of the metric that every round has: the elapsed time, divided by the
// operations of all goroutines.
const NsPerOp = "ns/op"

func (r Round) metric(unit string) (float64, bool) {
	if unit == NsPerOp {
		return r.nsPerOp(), true
	}

	for _, m := range r.Metrics {
		if m.Unit == unit {
			return m.Value, true
		}
	}

	return 0, false
}

func (r Round) nsPerOp() float64 {
	return float64(r.Elapsed.Nanoseconds()) / float64(max(r.N, 1))
}

func (r Round) line() string {
	var b strings.Builder

	fmt.Fprintf(&b, "%s\t%d\t%.1f %s", r.Key, r.N, r.nsPerOp(), NsPerOp)

	for _, m := range r.Metrics {
		fmt.Fprintf(&b, "\t%s %s", strconv.FormatFloat(m.Value, 'g', 6, 64), m.Unit)
	}

	return b.String()
}

// Log has every round of a run. It is safe for concurrent use.
type Log struct {
	out io.Writer

	mu     sync.Mutex // guards what follows, and writes to out
	rounds []Round
	err    error
}

// NewLog starts a results file with the lines that benchstat shows above a table.
func NewLog(out io.Writer, cpu string) *Log {
	l := &Log{out: out}
	_, l.err = fmt.Fprintf(out, "goos: %s\ngoarch: %s\npkg: github.com/ismurov/pglocker/bench\ncpu: %s\n",
		runtime.GOOS, runtime.GOARCH, cpu)

	return l
}

func (l *Log) Add(r Round) {
	l.mu.Lock()
	defer l.mu.Unlock()

	l.rounds = append(l.rounds, r)

	if _, err := fmt.Fprintln(l.out, r.line()); err != nil && l.err == nil {
		l.err = err
	}
}

func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.err
}

// Values returns the values of a metric in all rounds of a series that have it.
func (l *Log) Values(k Key, unit string) []float64 {
	l.mu.Lock()
	defer l.mu.Unlock()

	var values []float64

	for _, r := range l.rounds {
		if r.Key != k {
			continue
		}

		if v, ok := r.metric(unit); ok {
			values = append(values, v)
		}
	}

	return values
}

// Median returns the median of a metric over the rounds of a series, and NaN if there is
// none.
func (l *Log) Median(k Key, unit string) float64 {
	return stats.Median(l.Values(k, unit))
}

// Params lists the parameters of a workload, in the order of their first round.
func (l *Log) Params(workload string) []string {
	return l.distinct(func(r Round) (string, bool) { return r.Params, r.Workload == workload })
}

// Contenders lists the contenders of a workload, in the order of their first round.
func (l *Log) Contenders(workload string) []string {
	return l.distinct(func(r Round) (string, bool) { return r.Contender, r.Workload == workload })
}

func (l *Log) distinct(of func(Round) (string, bool)) []string {
	l.mu.Lock()
	defer l.mu.Unlock()

	var (
		found []string
		seen  = make(map[string]bool)
	)

	for _, r := range l.rounds {
		if name, ok := of(r); ok && !seen[name] {
			seen[name] = true
			found = append(found, name)
		}
	}

	return found
}
