// Package format writes numbers for people to read.
package format

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

func Duration(ns float64) string {
	d := time.Duration(ns)

	switch {
	case d >= 100*time.Millisecond:
		return d.Round(time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d >= 100*time.Microsecond:
		return d.Round(time.Microsecond).String()
	}

	return d.Round(10 * time.Nanosecond).String()
}

func Count(n float64) string { return Thousands(int(n + 0.5)) }

func Kilobytes(n float64) string { return Count(n/1024) + " kB" }

// Figures writes a number with three significant digits.
func Figures(n float64) string {
	switch {
	case n >= 1000:
		return Count(n)
	case n >= 100:
		return fmt.Sprintf("%.0f", n)
	case n == 0:
		return "0"
	}

	return fmt.Sprintf("%.3g", n)
}

func Thousands(n int) string {
	digits := fmt.Sprint(n)

	var groups []string
	for len(digits) > 3 {
		groups = append(groups, digits[len(digits)-3:])
		digits = digits[:len(digits)-3]
	}

	groups = append(groups, digits)
	slices.Reverse(groups)

	return strings.Join(groups, ",")
}
