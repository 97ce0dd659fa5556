package main

import "time"

// parseTime reads a time: a duration before now, a time of the day, the last such in UTC, or a date and a time.
func parseTime(text string, now time.Time) (time.Time, error) {
	if ago, err := parseDays(text); err == nil {
		return now.Add(-ago), nil
	}

	for _, layout := range []string{time.RFC3339Nano, "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"} {
		if at, err := time.ParseInLocation(layout, text, time.UTC); err == nil {
			return at, nil
		}
	}

	for _, layout := range []string{"15:04:05", "15:04"} {
		clock, err := time.Parse(layout, text)
		if err != nil {
			continue
		}

		at := now.UTC().Truncate(24 * time.Hour).Add(clock.Sub(clock.Truncate(24 * time.Hour)))
		if at.After(now) {
			at = at.AddDate(0, 0, -1)
		}

		return at, nil
	}

	return time.Time{}, usagef("invalid time %q: write 2026-11-27T03:12:00Z, \"2026-11-27 03:12\", 03:12, or 2h for two hours ago", text)
}
