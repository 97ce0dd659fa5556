package suite

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/fault"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// TestFailovers: a run in which no server took over proves nothing. Neither does one that was to
// lose commits and lost none. What is lost is counted, and is no violation.
func TestFailovers(t *testing.T) {
	t.Parallel()

	setup := func(context.Context, int) (fault.Setup, error) { return nil, nil }
	failover := history.Event{Kind: history.Failover, From: 20, At: 40}
	loss := history.Event{Kind: history.Loss, From: 20, At: 40}
	grant := &history.Operation{
		Event: history.Event{Kind: history.Acquire, Client: "c1.1", Lock: "a", Token: 2, Outcome: history.OK, Until: 50},
		Call:  25, End: 26,
	}
	written := []oracle.Write{{Lock: "a", Token: 2, Value: 1}}

	for _, test := range []struct {
		name        string
		loses       bool
		distributed bool
		notes       []history.Event
		ops         []*history.Operation
		want        []oracle.Name
		lost        int
		weak        bool
	}{
		{name: "nobody took over", weak: true},
		{name: "nobody had to, of several servers", distributed: true},
		{name: "somebody did", notes: []history.Event{failover}},
		{name: "commits were to be lost", loses: true, notes: []history.Event{failover, loss}, weak: true},
		{name: "commits were lost", loses: true, notes: []history.Event{failover, loss}, ops: []*history.Operation{grant}, lost: 1},
		{name: "commits were not to be lost", notes: []history.Event{failover}, ops: []*history.Operation{grant}, want: []oracle.Name{oracle.Audit}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := &Result{Job: Job{Fault: fault.Fault{Name: "x", Setup: setup, Loses: test.loses, Distributed: test.distributed, Harmless: test.distributed}}}
			r.judge(&oracle.Run{History: &history.History{Notes: test.notes, Operations: test.ops}, Writes: written})

			var names []oracle.Name
			for _, v := range r.Violations {
				names = append(names, v.Oracle)
			}

			if !slices.Equal(names, test.want) || r.Lost.Grants != test.lost || (r.Weak != "") != test.weak {
				t.Errorf("violations %v, %d lost grants, weak %q; want %v, %d", r.Violations, r.Lost.Grants, r.Weak, test.want, test.lost)
			}

			var text strings.Builder
			r.Print(&text, "-ha -seed 1 -only x")

			if told := strings.Contains(text.String(), "acknowledged grants were lost"); told != test.loses {
				t.Errorf("the losses are told: %t, in\n%s", told, text.String())
			}

			if r.Failed() && !strings.Contains(text.String(), "go run . -ha -seed 1 -only x") {
				t.Errorf("how to repeat it isn't told:\n%s", text.String())
			}
		})
	}
}
