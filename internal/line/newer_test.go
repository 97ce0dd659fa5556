package line

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/handover"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/waitqueue"
)

// returned is a request for a slot that notes what is returned.
type returned struct {
	Special
	grants chan int64
}

func (r returned) Return(res store.Result) { r.grants <- res.Row.Generation }

// TestTwoSlots: a waiter that is granted a slot and handed another keeps the newer one. The other is returned, and
// the next head asks.
func TestTwoSlots(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var (
			q     = waitqueue.New()
			desk  = handover.New(handover.Config{Queue: q})
			asked = returned{grants: make(chan int64, 1)}
			w     = waiter{Line: &Line{Desk: desk}, Request: Request{LockID: "a", Special: asked}}
			first = q.JoinSlot("a", time.Second, 3, false)
			next  = q.JoinSlot("a", time.Second, 3, false)
			grant = func(generation int64) store.Result { return store.Result{Row: store.Row{Generation: generation}} }
		)

		<-first.Woken() // and asks

		if !q.Deliver(first, grant(5)) {
			t.Fatal("the first has left")
		}

		delivered, _ := first.Leave()
		if got := w.newer(grant(6), delivered); got.Row.Generation != 6 {
			t.Errorf("it keeps %d, want 6", got.Row.Generation)
		}

		synctest.Wait()

		if len(asked.grants) != 1 || <-asked.grants != 5 {
			t.Error("the other slot wasn't returned")
		}

		if len(next.Woken()) != 1 {
			t.Error("the next head doesn't ask")
		}
	})
}

// TestLeftAsHanded: a waiter that is handed a slot while it asks, and leaves at that moment, returns the slot. The
// next head asks at once: what the request of the one that left would have been told, it isn't.
func TestLeftAsHanded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var (
			q     = waitqueue.New()
			desk  = handover.New(handover.Config{Queue: q})
			asked = returned{grants: make(chan int64, 1)}
			first = q.JoinSlot("a", time.Second, 3, false)
			next  = q.JoinSlot("a", time.Second, 3, false)
			w     = waiter{Line: &Line{Desk: desk}, Request: Request{LockID: "a", Special: asked}, place: first}
		)

		first.SleepUntil(time.Now().Add(time.Minute))
		<-first.Woken() // and asks

		if !q.Deliver(first, store.Result{Row: store.Row{Generation: 5}}) {
			t.Fatal("the first has left")
		}

		if err := w.leave(context.Canceled); !errors.Is(err, context.Canceled) {
			t.Errorf("it left with %v", err)
		}

		synctest.Wait()

		if len(asked.grants) != 1 || <-asked.grants != 5 {
			t.Error("the slot wasn't returned")
		}

		if at := next.AskAt(); at.IsZero() || at.After(time.Now()) {
			t.Errorf("the next head asks at %v, want now", at)
		}
	})
}
