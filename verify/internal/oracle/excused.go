package oracle

import (
	"fmt"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
)

// Excused is what O2 leaves out, since G2 does.
type Excused struct {
	// Stopped are overlaps of which one part was while its client didn't run. Overtaken are
	// overlaps after a clock was set ahead.
	Stopped, Overtaken Overlaps
	// Believed is how long clients believed in locks, all together. Cut is how much of that was
	// left out since they didn't run.
	Believed, Cut time.Duration
}

// MeasureExcused counts it.
func MeasureExcused(run *Run) Excused {
	_, _, excused := compareBeliefs(run)
	last := lastSigns(run.History)

	for _, b := range beliefsOf(run.History) {
		end := b.uncut
		if end == history.Never {
			end = last[b.grant.Client]
		}

		if b.late {
			continue // no belief that could have met another
		}

		excused.Believed += time.Duration(max(0, end-b.start))
		excused.Cut += time.Duration(max(0, end-max(b.start, min(b.end, end))))
	}

	return excused
}

// Add adds what another run has left out.
func (e *Excused) Add(other Excused) {
	e.Stopped.merge(other.Stopped)
	e.Overtaken.merge(other.Overtaken)
	e.Believed += other.Believed
	e.Cut += other.Cut
}

func (o *Overlaps) merge(other Overlaps) {
	o.Count += other.Count
	o.Longest = max(o.Longest, other.Longest)
}

func (e Excused) String() string {
	return fmt.Sprintf("O2 left out %d overlaps by pauses, the longest of %s, and %d by clocks set ahead, of %s; pauses cut %.1f%% of all belief",
		e.Stopped.Count, e.Stopped.Longest.Round(time.Millisecond),
		e.Overtaken.Count, e.Overtaken.Longest.Round(time.Millisecond), 100*e.Share())
}

// Share is how much of all belief was left out.
func (e Excused) Share() float64 {
	if e.Believed == 0 {
		return 0
	}

	return float64(e.Cut) / float64(e.Believed)
}
