package main

import (
	"testing"
	"time"
)

func TestParseDays(t *testing.T) {
	t.Parallel()

	const day = 24 * time.Hour

	for text, want := range map[string]time.Duration{
		"90d": 90 * day, "36h": 36 * time.Hour, "1d12h": 36 * time.Hour, "2w": 14 * day, "1w1d1h1m1s": 8*day + time.Hour + time.Minute + time.Second,
		"0.5d": 12 * time.Hour, "0": 0, "0s": 0, "250ms": 250 * time.Millisecond,
	} {
		if got, err := parseDays(text); err != nil || got != want {
			t.Errorf("%q: %s, %v, want %s", text, got, err, want)
		}
	}

	for _, text := range []string{"", "d", "90", "-1d", "1d-1h", "-5s", "1x", "1e300d", "NaNd", "Infd", "1h1d", "1d2w", "99999999d", "70000d2000000h"} {
		if got, err := parseDays(text); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}

// TestWaiting: a number is of seconds, as with flock.
func TestWaiting(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]time.Duration{
		"6": 6 * time.Second, "0": 0, "0.25": 250 * time.Millisecond, "1e2": 100 * time.Second, "90d": 90 * 24 * time.Hour, "5m": 5 * time.Minute,
	} {
		var got days
		if err := (waiting{&got}).Set(text); err != nil || time.Duration(got) != want {
			t.Errorf("%q: %s, %v, want %s", text, time.Duration(got), err, want)
		}
	}

	for _, text := range []string{"", "-1", "-0.5", "NaN", "Inf", "1e300", "-5s", "soon"} {
		var got days
		if err := (waiting{&got}).Set(text); err == nil {
			t.Errorf("%q: %s", text, time.Duration(got))
		}
	}
}

func TestSpoken(t *testing.T) {
	t.Parallel()

	for d, want := range map[time.Duration]string{
		0: "0s", 1500 * time.Microsecond: "2ms", 59 * time.Second: "59s", 80 * time.Second: "1m20s", 2 * time.Hour: "2h",
		25*time.Hour + 30*time.Minute: "1d1h", 90 * 24 * time.Hour: "90d", -time.Minute: "-1m", time.Hour + time.Second: "1h",
	} {
		if got := spoken(d); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	t.Parallel()

	now := time.Date(2026, 11, 27, 3, 12, 0, 0, time.UTC)

	for text, want := range map[string]time.Time{
		"2h":                        now.Add(-2 * time.Hour),
		"1d":                        now.AddDate(0, 0, -1),
		"03:12":                     now,
		"03:13":                     now.AddDate(0, 0, -1).Add(time.Minute),
		"02:00:30":                  time.Date(2026, 11, 27, 2, 0, 30, 0, time.UTC),
		"2026-11-26":                time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC),
		"2026-11-26 23:01":          time.Date(2026, 11, 26, 23, 1, 0, 0, time.UTC),
		"2026-11-26T23:01:02.5Z":    time.Date(2026, 11, 26, 23, 1, 2, 5e8, time.UTC),
		"2026-11-26T23:01:02+01:00": time.Date(2026, 11, 26, 22, 1, 2, 0, time.UTC),
		"2026-11-26 23:01:02.123Z":  time.Date(2026, 11, 26, 23, 1, 2, 123e6, time.UTC), // as `history` prints it
	} {
		if got, err := parseTime(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %s, %v, want %s", text, got, err, want)
		}
	}

	for _, text := range []string{"", "yesterday", "25:00", "2026-13-01"} {
		if got, err := parseTime(text, now); err == nil {
			t.Errorf("%q: %s", text, got)
		}
	}
}
