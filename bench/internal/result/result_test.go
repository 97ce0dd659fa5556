package result_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker/bench/internal/result"
)

func TestLog(t *testing.T) {
	var out strings.Builder

	log := result.NewLog(&out, "a fast one")
	key := result.Key{Workload: "W2", Params: "goroutines=256", Contender: "pglocker"}

	for _, perSecond := range []float64{30, 10, 20} {
		log.Add(result.Round{Key: key, N: 4, Elapsed: time.Second, Metrics: []result.Metric{{Unit: "pairs/s", Value: perSecond}}})
	}

	log.Add(result.Round{Key: result.Key{Workload: "W6", Contender: "floor"}, N: 1, Elapsed: time.Second})

	if err := log.Err(); err != nil {
		t.Fatal(err)
	}

	want := "BenchmarkW2/goroutines=256/contender=pglocker\t4\t250000000.0 ns/op\t30 pairs/s\n"
	if !strings.Contains(out.String(), want) {
		t.Errorf("no line %q in\n%s", want, out.String())
	}

	if !strings.Contains(out.String(), "cpu: a fast one\n") || !strings.Contains(out.String(), "\nBenchmarkW6/contender=floor\t") {
		t.Errorf("got\n%s", out.String())
	}

	if got := log.Median(key, "pairs/s"); got != 20 {
		t.Errorf("the median is %v, want 20", got)
	}

	if got := log.Median(key, result.NsPerOp); got != 250e6 {
		t.Errorf("the median time is %v, want 250e6", got)
	}

	if got := log.Median(key, "apples/s"); !math.IsNaN(got) {
		t.Errorf("what was not measured is %v, want NaN", got)
	}

	if got := log.Contenders("W2"); len(got) != 1 || got[0] != "pglocker" {
		t.Errorf("contenders of W2: %v", got)
	}

	if got := log.Params("W2"); len(got) != 1 || got[0] != "goroutines=256" {
		t.Errorf("parameters of W2: %v", got)
	}
}
