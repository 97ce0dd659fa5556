package pglocker

import (
	"testing"
	"time"
)

// TestTrouble: no more than a line a minute, an end for each beginning that was logged, and
// none for others.
func TestTrouble(t *testing.T) {
	t.Parallel()

	var (
		tr    trouble
		start = time.Now()
	)

	for _, step := range []struct {
		at     time.Duration
		over   bool
		tell   bool
		lasted time.Duration
		failed int
	}{
		{at: 0, over: true},
		{at: time.Second, tell: true},
		{at: 2 * time.Second},
		{at: time.Minute},
		{at: 61 * time.Second, tell: true},
		{at: 70 * time.Second},
		{at: 80 * time.Second, over: true, tell: true, lasted: 79 * time.Second, failed: 5},
		{at: 81 * time.Second, over: true},
		{at: 90 * time.Second},
		{at: 91 * time.Second, over: true},
		{at: 100 * time.Second},
		{at: 121 * time.Second, tell: true},
		{at: 122 * time.Second, over: true, tell: true, lasted: 22 * time.Second, failed: 2},
	} {
		if !step.over {
			if tell := tr.happened(start.Add(step.at)); tell != step.tell {
				t.Errorf("a failure after %s is logged: %t, want %t", step.at, tell, step.tell)
			}

			continue
		}

		lasted, failed, tell := tr.over(start.Add(step.at))
		if tell != step.tell || tell && (lasted != step.lasted || failed != step.failed) {
			t.Errorf("the end after %s: lasted %s, %d failed, logged %t; want %+v", step.at, lasted, failed, tell, step)
		}
	}
}
