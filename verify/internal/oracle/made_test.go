package oracle_test

import (
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// Hand-made histories count in milliseconds, on clocks that agree.
const (
	ms = int64(1e6)
	us = int64(1e3) // a millisecond of the database's
)

// ttl is that of all leases here.
const ttl = int64(100)

// op is an operation from one millisecond to another; to 0: it never returned.
func op(client string, kind history.Kind, from, to int64, e history.Event) *history.Operation {
	e.Client, e.Kind, e.At, e.Op = client, kind, to*ms, from

	if e.Lock == "" {
		e.Lock = "a"
	}

	e.TTL = ttl * ms

	o := &history.Operation{Event: e, Call: from * ms, End: to * ms}
	if to == 0 {
		o.End, o.Outcome = history.Never, history.Unknown
	}

	return o
}

// owner is the name of a client's nth grant.
func owner(client, n string) string { return client + "#random." + n }

// granted is an acknowledged grant of a token.
func granted(client string, kind history.Kind, from, to, token int64) *history.Operation {
	return op(client, kind, from, to, history.Event{
		Outcome: history.OK, Token: token, Owner: owner(client, string(rune('a'+token))),
	})
}

// freed is an acknowledged release of a token.
func freed(client string, kind history.Kind, from, to, token int64) *history.Operation {
	return op(client, kind, from, to, history.Event{Outcome: history.OK, Generation: token})
}

func note(client string, kind history.Kind, at int64, e history.Event) history.Event {
	e.Client, e.Kind, e.Phase, e.At = client, kind, history.Note, at*ms

	return e
}

// set is the database's clock being set between two moments, to so far ahead.
func set(from, to, ahead int64) history.Event {
	return note("coordinator", history.Clock, to, history.Event{From: from * ms, Value: ahead * ms})
}

func run(ops ...*history.Operation) *oracle.Run {
	return &oracle.Run{History: &history.History{Operations: ops}}
}

// heldFrom is the row after a grant at a moment.
func heldFrom(client string, at, token int64) audit.Version {
	return audit.Version{
		Generation: token, Owner: owner(client, string(rune('a'+token))), Acquired: at * us, Expires: (at + ttl) * us,
	}
}

// freeSince is the row after a release at a moment.
func freeSince(at, generation int64) audit.Version {
	return audit.Version{Generation: generation, Expires: at * us}
}

// chain makes transitions of the versions of one row, with their client and time.
func chain(changes ...change) []*audit.Transition {
	var (
		transitions []*audit.Transition
		before      audit.Version
	)

	for i, c := range changes {
		transitions = append(transitions, &audit.Transition{
			Seq: int64(i + 1), Lock: "a", Old: before, New: c.row, Began: (c.at - 1) * us, At: c.at * us, App: c.app,
		})
		before = c.row
	}

	return transitions
}

type change struct {
	app string
	at  int64
	row audit.Version
}

// wantOnly fails unless there are violations of the oracle, all of which say what is
// wanted; "" wants none.
func wantOnly(t *testing.T, got []oracle.Violation, name oracle.Name, what string) {
	t.Helper()

	if what == "" {
		for _, v := range got {
			t.Errorf("a legal history: %s", v)
		}

		return
	}

	if len(got) == 0 {
		t.Fatalf("no violation, want one of %s: %q", name, what)
	}

	for _, v := range got {
		if v.Oracle != name || !strings.Contains(v.What, what) {
			t.Errorf("%s, want one of %s: %q", v, name, what)
		}
	}
}
