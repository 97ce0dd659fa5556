// Package stats reduces samples to the few numbers of the report.
package stats

import (
	"math"
	"slices"
	"time"
)

// Median returns the middle of the values, or the mean of the two in the middle. It returns
// NaN if there are none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}

	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2

	if len(sorted)%2 == 1 {
		return sorted[middle]
	}

	return (sorted[middle-1] + sorted[middle]) / 2
}

// Spread returns half the distance between the smallest and the largest value, as a share
// of the median: 0.1 is plus or minus 10 %. With a handful of rounds that says more than a
// standard deviation. It is 0 if the median is.
func Spread(values []float64) float64 {
	median := Median(values)
	if len(values) == 0 || median == 0 {
		return 0
	}

	return (slices.Max(values) - slices.Min(values)) / 2 / math.Abs(median)
}

// Percentile returns the smallest of the sorted values that at least the share p of all do
// not exceed. It returns 0 if there are none.
func Percentile(sorted []time.Duration, p float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}

	rank := int(math.Ceil(p*float64(len(sorted)))) - 1

	return sorted[min(max(rank, 0), len(sorted)-1)]
}

// Line fits y = intercept + slope*x by least squares of the relative error, in which small
// values count as much as large ones. Both are costs, and so at least 0.
func Line(x, y []float64) (intercept, slope float64) {
	var w, wx, wy, wxx, wxy float64

	for i := range x {
		if y[i] <= 0 {
			continue
		}

		weight := 1 / (y[i] * y[i])
		w += weight
		wx += weight * x[i]
		wy += weight * y[i]
		wxx += weight * x[i] * x[i]
		wxy += weight * x[i] * y[i]
	}

	if w == 0 {
		return math.NaN(), math.NaN()
	}

	if det := w*wxx - wx*wx; det > 0 {
		slope = (w*wxy - wx*wy) / det
	}

	slope = max(slope, 0)
	intercept = (wy - slope*wx) / w

	if intercept < 0 { // the best line through the origin instead
		return 0, wxy / wxx
	}

	return intercept, slope
}
