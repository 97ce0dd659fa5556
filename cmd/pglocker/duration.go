package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// days is a flag of a time that may be given in days: "90d", "1d12h", or as Go writes it, "36h".
type days time.Duration

// String is "" for no time: the usage shows no default then.
func (d *days) String() string {
	if *d == 0 {
		return ""
	}

	return spoken(time.Duration(*d))
}

// Type is what the usage says the flag takes.
func (d *days) Type() string { return "duration" }

func (d *days) Set(text string) error {
	parsed, err := parseDays(text)
	if err == nil {
		*d = days(parsed)
	}

	return err
}

// longest is the longest duration that a flag takes, about 200 years.
const longest time.Duration = math.MaxInt64 / 4 * 3

// waiting is a flag of a time that may be a number of seconds, as flock's -w.
type waiting struct{ *days }

func (w waiting) Set(text string) error {
	seconds, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return w.days.Set(text)
	}

	if !(seconds >= 0 && seconds < longest.Seconds()) { // nor NaN
		return fmt.Errorf("invalid duration %q: a number is of seconds, and not below zero", text)
	}

	*w.days = days(seconds * float64(time.Second))

	return nil
}

func invalidDuration(text string) error {
	return fmt.Errorf("invalid duration %q: write 90d, 36h or 1d12h", text)
}

// parseDays is time.ParseDuration that knows days and weeks, which come first: "2w", "90d", "1d12h".
func parseDays(text string) (time.Duration, error) {
	var total time.Duration

	rest := text
	for _, unit := range []struct {
		letter string
		length time.Duration
	}{{"w", 7 * 24 * time.Hour}, {"d", 24 * time.Hour}} {
		number, after, found := strings.Cut(rest, unit.letter)
		if !found {
			continue
		}

		n, err := strconv.ParseFloat(number, 64)
		if err != nil || !(n >= 0 && n*float64(unit.length)+float64(total) < float64(longest)) { // nor NaN
			return 0, invalidDuration(text)
		}

		total += time.Duration(n * float64(unit.length))
		rest = after
	}

	if rest == "" && text != "" {
		return total, nil
	}

	clock, err := time.ParseDuration(rest)
	if err != nil || clock < 0 || clock > longest-total {
		return 0, invalidDuration(text)
	}

	return total + clock, nil
}

// spoken writes a time for people, in at most two units: "3d4h", "1m20s", "0s".
func spoken(d time.Duration) string {
	if d < 0 {
		return "-" + spoken(-d)
	}

	units := []struct {
		length time.Duration
		letter string
	}{{24 * time.Hour, "d"}, {time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}}

	for i, u := range units {
		if d < u.length {
			continue
		}

		text := strconv.FormatInt(int64(d/u.length), 10) + u.letter
		if i+1 < len(units) {
			if rest := d % u.length / units[i+1].length; rest > 0 {
				text += strconv.FormatInt(int64(rest), 10) + units[i+1].letter
			}
		}

		return text
	}

	if d == 0 {
		return "0s"
	}

	return d.Round(time.Millisecond).String()
}
