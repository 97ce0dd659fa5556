package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

func TestWaking(t *testing.T) {
	t.Parallel()

	// waits is a waiter's request for the lock.
	waits := func(from, to int64, outcome history.Outcome) *history.Operation {
		return op("c2.1", history.Lock, from, to, history.Event{Waits: true, Outcome: outcome})
	}

	held := change{"c1.1", 0, heldFrom("c1.1", 0, 2)}
	released := change{"c1.1", 50, freeSince(50, 3)}
	taken := func(at int64) change { return change{"c2.1", at, heldFrom("c2.1", at, 4)} }

	for _, test := range []struct {
		name  string
		audit []change
		op    *history.Operation
		stall history.Event
		want  string
	}{
		{name: "woken", audit: []change{held, released, taken(55)}, op: waits(10, 60, history.OK)},
		{name: "by a poll", audit: []change{held, released, taken(450)}, op: waits(10, 460, history.OK)},
		{
			name: "by a poll of who sleeps", audit: []change{held, released, taken(2050)},
			op: waits(10, 2060, history.OK), want: "free for 1.99s",
		},
		{
			name: "never", audit: []change{held, released},
			op: waits(10, 2000, history.Refused), want: "free for 1.945s",
		},
		{
			name: "by another, who came by", audit: []change{held, released, {"c3.1", 1600, heldFrom("c3.1", 1600, 4)}},
			op: waits(10, 5000, history.Refused), want: "free for 1.54s",
		},
		{name: "held all the time", audit: []change{held}, op: waits(10, 5000, history.Refused)},
		{name: "came later", audit: []change{held, released, taken(2050)}, op: waits(2000, 2060, history.OK)},
		{name: "left before", audit: []change{held, released, taken(2050)}, op: waits(10, 300, history.Refused)},
		{
			name: "who doesn't wait", audit: []change{held, released, taken(2050)},
			op: op("c2.1", history.TryLock, 10, 2060, history.Event{Outcome: history.OK}),
		},
		{
			name: "after a minimum hold", audit: []change{held, {"c1.1", 50, freeSince(1500, 3)}, taken(1502)},
			op: waits(10, 1510, history.OK),
		},
		{
			name: "stopped meanwhile", audit: []change{held, released, taken(2050)}, op: waits(10, 2060, history.OK),
			stall: note("c2.1", history.Stall, 1800, history.Event{From: 900 * ms}),
		},
		{
			name: "stopped before", audit: []change{held, released, taken(2050)}, op: waits(10, 2060, history.OK),
			stall: note("c2.1", history.Stall, 49, history.Event{From: 0}), want: "free for 1.99s",
		},
		{
			name: "another was stopped", audit: []change{held, released, taken(2050)}, op: waits(10, 2060, history.OK),
			stall: note("c1.1", history.Stall, 1800, history.Event{From: 900 * ms}), want: "free for 1.99s",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := run(test.op)
			r.Audit = chain(test.audit...)
			r.Undisturbed = true

			if test.stall.Kind != "" {
				r.History.Notes = []history.Event{test.stall}
			}

			wantOnly(t, oracle.CheckWaking(r), oracle.Healing, test.want)

			// Where something is broken, it may be that.
			r.Undisturbed = false
			wantOnly(t, oracle.CheckWaking(r), oracle.Healing, "")
		})
	}
}
