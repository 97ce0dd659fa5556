package suite

import (
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker/verify/internal/fault"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// TestControl: a control that loses nothing proves nothing, and is a violation; its losses
// are none.
func TestControl(t *testing.T) {
	t.Parallel()

	lossy := &oracle.Run{History: &history.History{}, Writes: []oracle.Write{
		{Lock: "a", Token: 4, Value: 1}, {Lock: "a", Token: 2, Value: 1},
	}}
	none := &oracle.Run{History: &history.History{}, Writes: []oracle.Write{{Lock: "a", Token: 2, Value: 1}}}

	for _, test := range []struct {
		name       string
		control    bool
		run        *oracle.Run
		losses     int
		violations int
		weak       bool
	}{
		{"control that loses", true, lossy, 1, 0, false},
		{"control that doesn't", true, none, 0, 0, true},
		{"fenced, and loses", false, lossy, 0, 1, false},
		{"fenced, and doesn't", false, none, 0, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := &Result{Job: Job{Fault: fault.Fault{Name: test.name}, Control: test.control}, Injected: 1}
			r.judge(test.run)

			if r.Losses != test.losses || len(r.Violations) != test.violations || (r.Weak != "") != test.weak ||
				r.Failed() != (test.violations > 0 || test.weak) {
				t.Errorf("%d losses, violations %v, weak %q, failed %t", r.Losses, r.Violations, r.Weak, r.Failed())
			}

			for _, v := range r.Violations {
				if v.Oracle != oracle.Fencing {
					t.Errorf("%s, want one of %s", v, oracle.Fencing)
				}
			}

			var table strings.Builder
			if err := Report(&table, []*Result{r}); err != nil {
				t.Fatal(err)
			}

			total := strings.Fields(table.String()[strings.LastIndex(table.String(), "all"):])
			if got := total[len(total)-5]; (got == "1") != (test.violations > 0) { // O4 of eight
				t.Errorf("O4 is %s in\n%s", got, table.String())
			}
		})
	}
}

// TestEmptiness: a run in which nothing was broken proves nothing, unless it was to break nothing.
// Neither does a run without a write, unless no client was to write.
func TestEmptiness(t *testing.T) {
	t.Parallel()

	guarded := &oracle.Run{History: &history.History{}, Writes: []oracle.Write{{Lock: "a", Token: 2, Value: 1}}}
	outside := &oracle.Run{History: &history.History{Notes: []history.Event{{Kind: history.Write, Lock: "a", Token: 2, Value: 1}}}}
	silent := &oracle.Run{History: &history.History{}}
	exhausted := &oracle.Run{History: &history.History{Notes: []history.Event{{Kind: traffic.Exhausted}}}, Writes: guarded.Writes}

	for _, test := range []struct {
		name     string
		fault    fault.Fault
		injected int64
		run      *oracle.Run
		weak     bool
	}{
		{"something was broken", fault.Fault{}, 1, guarded, false},
		{"nothing was broken", fault.Fault{}, 0, guarded, true},
		{"a pool was used up", fault.Fault{}, 0, exhausted, false},
		{"nothing was to be broken", fault.Fault{Harmless: true}, 0, guarded, false},
		{"writes outside alone", fault.Fault{}, 1, outside, false},
		{"a place was never hit", fault.Fault{Places: []string{"there", "elsewhere"}}, 1, guarded, true},
		{"all places were hit", fault.Fault{Places: []string{"there"}}, 1, guarded, false},
		{"no writes", fault.Fault{}, 1, silent, true},
		{"no writes where all wait", fault.Fault{Harmless: true, Waits: true}, 0, silent, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := &Result{Job: Job{Fault: test.fault}, Injected: test.injected, Stops: map[string]int{"there": 2}}
			r.judge(test.run)

			if (r.Weak != "") != test.weak || r.Failed() != test.weak || len(r.Violations) > 0 {
				t.Errorf("weak %q, failed %t, violations %v", r.Weak, r.Failed(), r.Violations)
			}
		})
	}
}

// TestBlind: where no client is to be stopped, O2 must have looked at most of all belief.
func TestBlind(t *testing.T) {
	t.Parallel()

	const second = int64(time.Second)

	for _, test := range []struct {
		stops  bool
		paused int64
		weak   bool
	}{
		{false, second / 10, false},
		{false, second * 2 / 5, false},
		{false, second * 3 / 5, true},
		{true, second * 3 / 5, false},
	} {
		grant := &history.Operation{
			Event: history.Event{Kind: history.Acquire, Client: "c1.1", Lock: "a", Token: 2, Outcome: history.OK, Until: second},
		}
		stall := history.Event{Kind: history.Stall, Client: "c1.1", From: second - test.paused, At: second}
		h := &history.History{Operations: []*history.Operation{grant}, Notes: []history.Event{stall}}

		r := &Result{Job: Job{Fault: fault.Fault{Name: "x", Harmless: true, Waits: true, Stops: test.stops}}}
		r.judge(&oracle.Run{History: h})

		if (r.Weak != "") != test.weak {
			t.Errorf("%+v: weak %q", test, r.Weak)
		}

		if r.Violations = nil; r.Again() != test.weak {
			t.Errorf("%+v: again %t", test, r.Again())
		}

		if r.Violations = []oracle.Violation{{}}; r.Again() {
			t.Errorf("%+v: again, though a promise was broken", test)
		}
	}
}
