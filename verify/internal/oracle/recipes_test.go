package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

func TestWhole(t *testing.T) {
	t.Parallel()

	// both is a request for a and b.
	both := func(a, b history.Outcome) []*history.Operation {
		one, other := granted("c1.1", history.All, 0, 9, 2), granted("c1.1", history.All, 0, 9, 3)
		one.Op, one.Request, one.Outcome = 1, 1, a
		other.Op, other.Request, other.Outcome, other.Lock = 2, 1, b, "b"

		return []*history.Operation{one, other}
	}
	// audited has b granted at a moment, and a before, until another.
	audited := func(over, at int64) []*audit.Transition {
		a := chain(change{"c1.1", 1, heldFrom("c1.1", 1, 2)}, change{"c1.1", over, freeSince(over, 3)})
		b := chain(change{"c1.1", at, heldFrom("c1.1", at, 3)})
		b[0].Lock, b[0].Seq = "b", 2

		if over < at {
			b[0].Seq = 3
		} else {
			a[1].Seq = 3
		}

		return append(a, b...)
	}

	for _, test := range []struct {
		name  string
		ops   []*history.Operation
		audit []*audit.Transition
		want  string
	}{
		{name: "all", ops: both(history.OK, history.OK), audit: audited(8, 2)},
		{name: "none", ops: both(history.Busy, history.Busy)},
		{name: "some", ops: both(history.OK, history.Busy), want: "granted in part"},
		{name: "one over before the other", ops: both(history.OK, history.OK), audit: audited(2, 5), want: "granted in part"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := run(test.ops...)
			r.Audit = test.audit
			settled, _ := oracle.Settle(r)
			wantOnly(t, oracle.CheckRecipes(r, settled), oracle.Recipes, test.want)
		})
	}
}

func TestElections(t *testing.T) {
	t.Parallel()

	election := traffic.Elections[0].ID()

	lead := func(client string, from, to, token int64) *history.Operation {
		o := granted(client, history.Lead, from, to, token)
		o.Lock = election

		return o
	}
	leads := func(client string, from, to int64) *history.Operation {
		return op(client, history.IsLeader, from, to, history.Event{Lock: election, Outcome: history.OK})
	}
	saw := func(at, token int64) history.Event {
		e := note("c3.1", history.Observed, at, history.Event{Lock: election, Token: token})
		e.Op = 1

		return e
	}

	terms := func() []*audit.Transition {
		all := chain(change{"c1.1", 1, heldFrom("c1.1", 1, 2)}, change{"c1.1", 9, freeSince(9, 3)}, change{"c2.1", 10, heldFrom("c2.1", 10, 4)})
		for _, t := range all {
			t.Lock = election
		}

		return all
	}

	first := lead("c1.1", 0, 1, 2)

	resigned := freed("c1.1", history.Leave, 8, 9, 2)
	resigned.Lock = election

	for _, test := range []struct {
		name  string
		ops   []*history.Operation
		notes []history.Event
		want  string
	}{
		{name: "one after the other", notes: []history.Event{saw(2, 2), saw(9, 0), saw(11, 4)}},
		{name: "in the wrong order", notes: []history.Event{saw(2, 4), saw(11, 2)}, want: "after a later one"},
		{name: "one that never was", notes: []history.Event{saw(2, 3)}, want: "not granted"},
		{name: "the leader says so", ops: []*history.Operation{first, resigned, leads("c1.1", 2, 3)}},
		{name: "another says so", ops: []*history.Operation{first, resigned, leads("c2.1", 2, 3)}, want: "two say that they lead"},
		{name: "another, who may have led before", ops: []*history.Operation{first, resigned, leads("c2.1", 0, 3)}},
		{name: "another, after that", ops: []*history.Operation{first, resigned, leads("c2.1", 10, 11)}},
		{name: "another, who stood still", ops: []*history.Operation{first, resigned, leads("c2.1", 2, 3)}, notes: []history.Event{
			note("c2.1", history.Stall, 3, history.Event{From: 0}),
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := run(test.ops...)
			r.Audit = terms()
			r.History.Notes = test.notes
			settled, _ := oracle.Settle(r)
			wantOnly(t, oracle.CheckRecipes(r, settled), oracle.Recipes, test.want)
		})
	}
}
