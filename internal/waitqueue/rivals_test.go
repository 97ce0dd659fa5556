package waitqueue

import (
	"fmt"
	"testing"
	"time"
)

// TestRivalsAreBounded: a process that polls is told of no release, so that no rival ever
// wins too long ago to count. Those it remembers are a few all the same, and among them
// the last.
func TestRivalsAreBounded(t *testing.T) {
	t.Parallel()

	q := New()
	w := q.Join("a", time.Second)

	for i := range 100_000 {
		rival := fmt.Sprint(i)
		q.Lost("a", rival)

		if rivals := q.lines["a"].turns.rivals; len(rivals) > rivalCounts {
			t.Fatalf("%d rivals are remembered after %d won", len(rivals), i+1)
		} else if rivals[len(rivals)-1].name != rival {
			t.Fatalf("the rival that has just won is forgotten, number %d", i)
		}
	}

	<-w.Woken() // it came first

	// It is this process's turn when it has let as many rounds go by as it has rivals.
	for round := 1; len(w.Woken()) == 0; round++ {
		if round > rivalCounts+1 {
			t.Fatalf("it has no turn in %d rounds", round-1)
		}

		q.Released("a")
	}
}
