package traffic

import (
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
)

const (
	pulse = 5 * time.Millisecond
	// stalled is how long a gap of the pulse is a stall: well below the margin of the shortest
	// lease, and above what a busy scheduler does.
	stalled = 15 * time.Millisecond
)

// watchStalls records when this process didn't run, whatever stopped it: SIGSTOP, or a busy
// machine. While it doesn't run it can't stop believing, and the promise of exclusion excepts that.
func watchStalls(rec *history.Recorder, stop <-chan struct{}) {
	ticker := time.NewTicker(pulse)
	defer ticker.Stop()

	last := history.Now()

	for {
		select {
		case <-ticker.C:
		case <-stop:
			return
		}

		now := history.Now()
		if now-last > int64(stalled) {
			rec.Note(history.Event{Kind: history.Stall, From: last, At: now})
		}

		last = now
	}
}
