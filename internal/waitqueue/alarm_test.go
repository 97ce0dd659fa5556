package waitqueue_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/waitqueue"
)

// TestWakeAfter: the head looks at the time that was asked for first to come, and when
// nobody waits any more, nothing is left of it.
func TestWakeAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := waitqueue.New()
		q.WakeAfter("a", time.Second) // of nobody

		w := q.Join("a", time.Minute)
		<-w.Woken()

		began := time.Now()
		woken := func() time.Duration {
			<-w.Woken()

			return time.Since(began)
		}

		q.WakeAfter("a", time.Hour)
		q.WakeAfter("a", 2*time.Minute)
		q.WakeAfter("a", 3*time.Minute)

		if after := woken(); after != 2*time.Minute {
			t.Errorf("woken after %s, want two minutes", after)
		}

		q.WakeAfter("a", time.Minute)

		if after := woken(); after != 3*time.Minute {
			t.Errorf("woken again after %s, want three minutes", after)
		}

		// The next head is woken by what was asked for before.
		q.WakeAfter("a", time.Minute)

		next := q.Join("a", time.Minute)
		w.Leave()
		<-next.Woken() // it became head

		w = next

		if after := woken(); after != 4*time.Minute {
			t.Errorf("the next is woken after %s, want four minutes", after)
		}

		// A line that comes later is another.
		q.WakeAfter("a", time.Minute)
		w.Leave()

		w = q.Join("a", time.Minute)
		<-w.Woken()

		time.Sleep(2 * time.Minute)

		if has(w.Woken()) {
			t.Error("woken by a time that was asked for those who have left")
		}
	})
}
