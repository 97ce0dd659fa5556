package model

import (
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/race"
)

var deep = flag.Bool("deep", false, "check larger scenarios: takes minutes, and gigabytes")

// TestScenarios: nothing that is promised is broken in any state that can be reached.
func TestScenarios(t *testing.T) {
	t.Parallel()

	if race.Enabled && !*deep {
		t.Skip("one goroutine walks through all states: nothing to race, and twenty times slower; .ci/run does it without")
	}

	states, transitions := 0, 0

	for _, s := range Scenarios {
		t.Run(s.Name, func(t *testing.T) {
			if *deep {
				s = s.Deeper()
			}

			start := time.Now()
			r := Check(s, NoMutant)

			t.Logf("%d states, %d transitions, the last after %d steps, %v",
				r.States, r.Transitions, r.Depth, time.Since(start).Round(time.Millisecond))

			states += r.States
			transitions += r.Transitions

			if r.Broken != nil {
				t.Errorf("%s: %s\n%s", r.Broken.Property, r.Broken.Text, strings.Join(r.Trace, "\n"))
			}
		})
	}

	t.Logf("in all %d states, %d transitions", states, transitions)
}

// TestMutants: the model notices when a rule is broken, by the promise that the rule is
// there for.
func TestMutants(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		mutant   Mutant
		scenario string
		catches  Property
	}{
		{RenewAnyGeneration, "lost replies", OnlyHolder},
		{RenewRevives, "lost replies", OnlyHolder},
		{ReleaseAnyGeneration, "one tenure after another", OnlyHolder},
		{TermFromReply, "one tenure after another", HolderStopsFirst},
		{TermFromRepetition, "lost replies", HolderStopsFirst},
		{NoMargin, "a clock that steps by less than the margin", HolderStopsFirst},
		{BelieveUntilReleased, "one tenure after another", HolderStopsFirst},
		{TransactionsClock, "longer leases", HolderStopsFirst},
		{DeleteOnRelease, "one tenure after another", TokensGrow},
		{LazyGrants, "a crash", Durable},
		{LazyHold, "a crash", Durable},
		{AckBeforeCommit, "a crash", UnknownIsUnknown},
		{UnknownIsFree, "lost replies", UnknownIsUnknown},
		{UnknownIsHeld, "lost replies", UnknownIsUnknown},
		{GrantSettlesAll, "lost replies", Returned},
		{WeakGuard, "guarded transactions and pauses", NoStaleWrite},
		{NoFloor, "promotion of a standby that lacks commits", TokensGrow},
		{PlainWatermark, "a prune beside first grants", TokensGrow},
		{NoWatermark, "a prune beside first grants", TokensGrow},
		{DeleteFirst, "a prune beside first grants", TokensGrow},
		{SeenByGeneration, "a crash, and a status that was seen before it", OnlyHolder},
	} {
		t.Run(string(test.mutant), func(t *testing.T) {
			t.Parallel()

			r := Check(scenarioOf(t, test.scenario), test.mutant)

			switch {
			case r.Broken == nil:
				t.Fatalf("not caught in %d states", r.States)
			case r.Broken.Property != test.catches:
				t.Errorf("caught by %s, want %s", r.Broken.Property, test.catches)
			}

			t.Logf("caught by %s, after %d states: %s\n%s",
				r.Broken.Property, r.States, r.Broken.Text, strings.Join(r.Trace, "\n"))
		})
	}
}

// TestExclusionNeedsWhatItAssumes: the faults that G2 excludes do break it. Without them
// the scenarios would show less than they seem to.
func TestExclusionNeedsWhatItAssumes(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"promotion of a standby that lacks commits", "a clock that jumps"} {
		s := scenarioOf(t, name)
		s.NotPromised = nil

		if r := Check(s, NoMutant); r.Broken == nil || r.Broken.Property != HolderStopsFirst {
			t.Errorf("%s: %+v, want a lock that is granted while another holds it", name, r.Broken)
		}
	}
}

// TestClockSetBackByACrash: what docs/guarantees.md excepts from G3. A release of a lease
// that was over is lost in a crash, the clock goes back to before it, and the next grant
// has the generation and the time that somebody saw as free.
func TestClockSetBackByACrash(t *testing.T) {
	t.Parallel()

	s := scenarioOf(t, "a crash, and a status that was seen before it")
	s.Steps, s.Step = 1, 1

	if r := Check(s, NoMutant); r.Broken == nil || r.Broken.Property != OnlyHolder {
		t.Errorf("%+v, want a lock that is taken by a status from before: is the exception still needed?", r.Broken)
	}
}

func scenarioOf(t *testing.T, name string) Scenario {
	t.Helper()

	for _, s := range Scenarios {
		if s.Name == name {
			return s
		}
	}

	t.Fatalf("there is no scenario %q", name)

	return Scenario{}
}
