package waitqueue_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

// TestEmptyLine: a line that all waiters have left for a moment still knows that another process waits, for as long as
// that process's mark counts.
func TestEmptyLine(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		q := waitqueue.New()

		hasOthers := func(id string) bool {
			w := q.Join(id, 1)
			_, run := q.Head(id)
			w.Leave()

			return run.Others
		}

		mark := func(id string) { others(q, id, store.LongestMark) }

		w := q.Join("a", 1)
		mark("a")
		w.Leave()

		for range 2 {
			if !hasOthers("a") {
				t.Error("the others are forgotten with the last waiter")
			}
		}

		time.Sleep(time.Second)
		mark("a") // nobody waits at the moment
		time.Sleep(2*store.LongestMark - time.Nanosecond)

		if !hasOthers("a") {
			t.Error("the others are forgotten before their last mark counts no more")
		}

		time.Sleep(time.Nanosecond)

		if hasOthers("a") {
			t.Error("others, whose mark counts no more")
		}

		// It also knows how often the lock was handed over in a row.
		for n := range 3 {
			q.Deliver(q.Join("b", 1), store.Result{})

			if _, run := q.Head("b"); run != (waitqueue.Run{}) {
				t.Error("a line without waiters has a head")
			}

			w := q.Join("b", 1)
			if _, run := q.Head("b"); run.Length != 2*n+1 {
				t.Errorf("%d hand-overs in a row, want %d", run.Length, 2*n+1)
			}

			q.Extend("b")
			w.Leave()
			q.Extend("b") // nobody waits: no hand-over
			time.Sleep(20 * time.Second)
		}

		q.EndRun("b")

		w = q.Join("b", 1)
		if _, run := q.Head("b"); run.Length != 0 {
			t.Errorf("%d hand-overs in a row after a release for all", run.Length)
		}

		w.Leave()

		// The line is kept for those alone, and not for good.
		const locks = 10_000

		for i := range locks {
			w := q.Join(fmt.Sprint(i), 1)
			if i%2 == 0 {
				mark(fmt.Sprint(i))
			}

			w.Leave()
		}

		if n := q.EmptyLines(); n != locks/2 {
			t.Errorf("%d lines without waiters are kept, want %d", n, locks/2)
		}

		time.Sleep(time.Minute)

		for range locks { // of one lock
			w := q.Join("later", 1)
			mark("later")
			w.Leave()
		}

		if n := q.EmptyLines(); n > 200 {
			t.Errorf("%d lines without waiters are kept long after their marks", n)
		}
	})
}
