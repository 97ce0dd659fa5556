package waitqueue_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/waitqueue"
)

// TestWakeAfter: the head is told the time that was asked for first to come, and a head that comes later is
// told nothing of it.
func TestWakeAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := waitqueue.New()
		q.WakeAfter("a", time.Second) // of nobody

		w := q.Join("a", time.Minute)
		<-w.Woken()

		began := time.Now()
		hinted := func() time.Duration {
			<-w.Hinted()

			return w.AskAt().Sub(began)
		}

		q.WakeAfter("a", time.Hour)
		q.WakeAfter("a", 2*time.Minute)
		q.WakeAfter("a", 3*time.Minute)

		if after := hinted(); after != 2*time.Minute {
			t.Errorf("to ask after %s, want two minutes", after)
		}

		q.WakeAfter("a", 3*time.Minute)

		if after := hinted(); after != 3*time.Minute {
			t.Errorf("to ask again after %s, want three minutes", after)
		}

		// The next head asks at once.
		q.WakeAfter("a", time.Minute)

		next := q.Join("a", time.Minute)
		w.Leave()
		<-next.Woken()

		if has(next.Hinted()) {
			t.Error("hinted by what was asked for one who has left")
		}
	})
}
