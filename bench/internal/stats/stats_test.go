package stats_test

import (
	"math"
	"testing"
	"time"

	"github.com/ismurov/pglocker/bench/internal/stats"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 5}, 5},
		{[]float64{4, 1, 2, 100}, 3},
	} {
		if got := stats.Median(c.values); got != c.want {
			t.Errorf("Median(%v) = %v, want %v", c.values, got, c.want)
		}
	}

	if got := stats.Median(nil); !math.IsNaN(got) {
		t.Errorf("Median(nil) = %v, want NaN", got)
	}

	values := []float64{2, 1}
	if stats.Median(values); values[0] != 2 {
		t.Error("Median reordered its argument")
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{
		{nil, 0},
		{[]float64{7}, 0},
		{[]float64{0, 0}, 0},
		{[]float64{90, 100, 120}, 0.15},
	} {
		if got := stats.Spread(c.values); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("Spread(%v) = %v, want %v", c.values, got, c.want)
		}
	}
}

func TestPercentile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}

	for _, c := range []struct {
		sorted []time.Duration
		p      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{hundred[:1], 0.99, 1},
		{hundred, 0, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
	} {
		if got := stats.Percentile(c.sorted, c.p); got != c.want {
			t.Errorf("Percentile of %d values at %v = %v, want %v", len(c.sorted), c.p, got, c.want)
		}
	}
}

func TestLine(t *testing.T) {
	for _, c := range []struct {
		name             string
		x, y             []float64
		intercept, slope float64
	}{
		{"through both", []float64{0, 1, 2}, []float64{3, 5, 7}, 3, 2},
		{"never falls", []float64{1, 2}, []float64{4, 4}, 4, 0},
		{"through the origin at least", []float64{1, 2}, []float64{1, 3}, 0, 1.2},
	} {
		intercept, slope := stats.Line(c.x, c.y)
		if math.Abs(intercept-c.intercept) > 1e-9 || math.Abs(slope-c.slope) > 0.1 {
			t.Errorf("%s: %v + %v x, want %v + %v x", c.name, intercept, slope, c.intercept, c.slope)
		}
	}
}
