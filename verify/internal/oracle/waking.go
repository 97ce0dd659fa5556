package oracle

import (
	"fmt"
	"slices"
	"time"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
)

// wakeWithin is how long a released lock may stay free while a client waits for it and nothing is
// broken. A client that can't listen looks every 400 ms. One that listens and isn't woken looks
// after two seconds at the earliest.
const wakeWithin = 1500 * time.Millisecond

// CheckWaking is the other part of O6: a waiter is told of a release once that is committed. A
// waiter that is told too early finds the lock held, and sleeps on until its next look. That costs
// time and no promise. Only a run in which nothing is broken can show it.
func CheckWaking(run *Run) []Violation {
	if !run.Undisturbed {
		return nil
	}

	var violations []Violation

	waiting := byLock(run.History.Operations, func(op *history.Operation) string { return op.Lock })

	for _, free := range freeTimes(run) {
		if free.before.New.Owner != "" {
			continue // it was not released
		}

		for _, op := range waiting[free.before.Lock] {
			if !op.Waits || op.End == history.Never {
				continue
			}

			waited := window{max(op.Call, free.from), min(op.End, free.to)}
			if wasted := waited.to - waited.from - stalledIn(run, op.Client, waited); wasted > int64(wakeWithin) {
				violations = append(violations, Violation{
					Healing, op.Lock,
					fmt.Sprintf("free for %s while somebody waited", time.Duration(wasted)),
					describe(free.before, op),
				})
			}
		}
	}

	return violations
}

// freeTime is how long a lock was free for certain after a release or the end of a lease, by the
// clock of the histories.
type freeTime struct {
	window
	// before is the transition after which it became free.
	before *audit.Transition
}

func freeTimes(run *Run) []freeTime {
	var all []freeTime

	last := make(map[string]int) // which of them is that of a lock

	for _, t := range run.Audit {
		taken, _ := run.momentsOf(t)

		if i, ok := last[t.Lock]; ok {
			all[i].to = taken
		}

		_, from := run.moments(max(t.At, t.New.Expires))
		last[t.Lock] = len(all)
		all = append(all, freeTime{window{from, history.Never}, t})
	}

	// A lease that was renewed, or a lock that was released before its end, wasn't free.
	return slices.DeleteFunc(all, func(f freeTime) bool { return f.from >= f.to })
}

// stalledIn is for how long the client didn't run in that time.
func stalledIn(run *Run, client string, w window) (stalled int64) {
	for _, e := range run.History.Notes {
		if e.Kind == history.Stall && e.Client == client {
			stalled += max(0, min(e.At, w.to)-max(e.From, w.from))
		}
	}

	return stalled
}
