package report

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/reach"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/workload"
)

// sampleLog has pairs of pglocker and of the floor, which is half as fast.
func sampleLog() *result.Log {
	log := result.NewLog(io.Discard, "a fast one")
	add := func(workload, params, name string, rate, statements float64) {
		log.Add(result.Round{
			Key: result.Key{Workload: workload, Params: params, Contender: name}, N: int(rate), Elapsed: time.Second,
			Metrics: []result.Metric{
				{Unit: "pairs/s", Value: rate},
				{Unit: "p50-ns", Value: 1e9 / rate},
				{Unit: "p99-ns", Value: 2e9 / rate},
				{Unit: "statements/pair", Value: statements},
				{Unit: "WAL-B/pair", Value: 400},
				{Unit: "fsyncs/pair", Value: statements / 2},
				// 10 µs for a pair and 50 µs for a statement.
				{Unit: "server-cpu-s/100k-pairs", Value: 1 + 5*statements},
				{Unit: "client-cpu-s/100k-pairs", Value: 1 + 2*statements},
			},
		})
	}

	add("W1", "", contender.NamePglocker, 2000, 2)
	add("W1", "", contender.NameFloor, 1000, 2)

	for _, n := range workload.Full.Goroutines {
		add("W2", workload.Goroutines(n), contender.NamePglocker, 20_000, 6/float64(n))
		add("W2", workload.Goroutines(n), contender.NameFloor, 10_000, 2)
	}

	log.Add(result.Round{
		Key: result.Key{
			Workload: "W12", Params: workload.Processes(200, time.Second, time.Minute), Contender: contender.NamePglockerLock,
		},
		N: 40, Elapsed: 40 * time.Second,
		Metrics: []result.Metric{{Unit: "handovers/s", Value: 1}, {Unit: "gap-p50-ns", Value: 5e5}},
	})

	for _, locks := range []int{workload.Full.SmallTable, workload.Full.LargeTable} {
		add("W5", workload.Locks(locks, 1), contender.NamePglocker, 2000, 2)
		add("W5", workload.UniformLocks(locks), contender.NamePglocker, 20_000, 0.03)
	}

	return log
}

func sampleInput(log *result.Log) Input {
	return Input{
		Plan:    workload.Full,
		Log:     log,
		Machine: Machine{CPU: "a fast one", Cores: 2},
		Reaches: reach.Of(log, workload.Full),
		Failed:  []error{errors.New("W9: the disk is full")},
		Chosen:  map[string]contender.Options{contender.NameFloor: {Pool: 32}},
	}
}

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "performance.md")
	if err := Write(path, sampleInput(sampleLog())); err != nil {
		t.Fatal(err)
	}

	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{
		"| pglocker | 2,000 | 2 × | 500µs | 0.5 × |",
		"floor 32",
		"Redis | not installed, left out",
		"server 10 µs + 50 µs · s",
		"| W5, 10,000,000, 256, uniform: WAL bytes/pair | up to 8,192 more,",
		"| W1 p50, over the floor's | at most 0.7 times | 0.50 times (500µs : 1ms) | reached |",
		"| W2 pairs/s, 64 goroutines, over the floor's | at least 6 times | 2.00 times (20,000 : 10,000) | **not reached** |",
		"| W10 pairs/s, 64 clients of one connection, over the floor's | at least 1.25 times | - | not measured |",
		"| W12 gap p50, 200 processes wait | at most 1 ms | 0.5 ms | reached |",
		"| 200, 1s, 1m0s | pglocker-lock | 1 | 500µs |",
		"**A workload failed**, and what is missing of it wasn't measured: W9: the disk is full",
	} {
		if !strings.Contains(string(page), want) {
			t.Errorf("no %q in the report", want)
		}
	}

	for _, wrong := range []string{"NaN", "Inf", "<no value>", "%!"} {
		if strings.Contains(string(page), wrong) {
			t.Errorf("%q in the report", wrong)
		}
	}

	images := regexp.MustCompile(`\]\((img/[^)]+)\)`).FindAllStringSubmatch(string(page), -1)
	if len(images) != 2 {
		t.Errorf("%d charts, want 2", len(images))
	}

	for _, image := range images {
		if _, err := os.Stat(filepath.Join(filepath.Dir(path), image[1])); err != nil {
			t.Error(err)
		}
	}
}

func TestReportOfNothing(t *testing.T) {
	page, err := render(sampleInput(result.NewLog(io.Discard, "")), nil)
	if err != nil {
		t.Fatal(err)
	}

	if strings.Contains(page, "NaN") || !strings.Contains(page, "Not measured in this run") {
		t.Error(page)
	}
}

// TestPredictions: more servers and machines never make it slower, and 100 machines
// are held up by the server.
func TestPredictions(t *testing.T) {
	m := newModel(sampleLog(), 2, workload.Full)

	few, server, disk := m.pairs(1, 1, 1)
	if few, which := limits(few, server, disk); which != "the clients' CPU" && which != "the server's CPU" {
		t.Errorf("one machine: %v because of %s", few, which)
	}

	many, which := limits(m.pairs(100, 1, 1))
	if many < few/2 || which == "the clients' CPU" {
		t.Errorf("100 machines: %v because of %s", many, which)
	}

	if spread, _ := limits(m.pairs(100, 16, 16)); spread <= many {
		t.Errorf("16 servers: %v, one: %v", spread, many)
	}
}

func TestTicks(t *testing.T) {
	var labels []string
	for _, tick := range ticks125(0.4, 12) {
		labels = append(labels, tick.Label)
	}

	if got := strings.Join(labels, " "); got != "0.5 1 2 5 10" {
		t.Errorf("labels %s", got)
	}
}
