package cluster

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestClock: the clock is behind by what it was set back since it showed the latest time,
// less the time that has passed.
func TestClock(t *testing.T) {
	t.Parallel()

	c := &Clock{path: filepath.Join(t.TempDir(), "clock")}

	set := func(ahead time.Duration, want string) {
		t.Helper()

		if err := c.set(ahead); err != nil {
			t.Fatal(err)
		}

		if text, err := os.ReadFile(c.path); err != nil || string(text) != want {
			t.Errorf("the file has %q, %v, want %q", text, err, want)
		}
	}
	behind := func(most time.Duration) {
		t.Helper()

		// What has passed since is less than a minute.
		if got := c.Behind(); got > most || got < max(0, most-time.Minute) {
			t.Errorf("behind by %s, want %s", got, most)
		}
	}

	set(0, "+0.000000\n")
	behind(0)
	set(-90*time.Minute, "-5400.000000\n")
	behind(90 * time.Minute)
	set(-10*time.Minute, "-600.000000\n")
	behind(10 * time.Minute)
	set(time.Hour, "+3600.000000\n")
	behind(0)
	set(0, "+0.000000\n")
	behind(time.Hour)
}
