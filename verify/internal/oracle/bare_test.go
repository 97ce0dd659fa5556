package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// bareFrom is the row of a table of three columns after a grant at a moment, as its audit
// has it.
func bareFrom(client string, at, token int64) audit.Version {
	v := heldFrom(client, at, token)
	v.Owner = audit.BareOwner(client, token)

	return v
}

// onBare makes a run one of a lock in a table of three columns.
func onBare(r *oracle.Run) *oracle.Run {
	for _, t := range r.Audit {
		t.Lock = traffic.Bare[0].ID
	}

	for _, o := range r.History.Operations {
		o.Lock = traffic.Bare[0].ID
		o.Owner = ""
	}

	traffic.NameBare(r.History)

	return r
}

// TestBare: of locks in a table without owners all is judged that the audit can tell. What
// looks like a release may be a grant of which nothing was left.
func TestBare(t *testing.T) {
	t.Parallel()

	var (
		first  = change{"c1.1", 10, bareFrom("c1.1", 10, 2)}
		freed3 = change{"c1.1", 20, freeSince(20, 3)}
		second = change{"c2.1", 30, bareFrom("c2.1", 30, 4)}

		grant1 = granted("c1.1", history.Acquire, 9, 11, 2)
		free1  = freed("c1.1", history.Release, 19, 21, 2)
		grant2 = granted("c2.1", history.Lock, 5, 31, 4)
		waits  = op("c3.1", history.Lock, 5, 200, history.Event{Outcome: history.Refused, Waits: true})
	)

	for _, test := range []struct {
		name string
		run  *oracle.Run
		want string
	}{
		{"granted, released, granted", audited(chain(first, freed3, second), grant1, free1, grant2), ""},
		{"renewed", audited(chain(first, change{"c1.1", 50, renewed(first.row, 50)}), granted("c1.1", history.Lock, 9, 11, 2)), ""},
		{"renewed by another", audited(chain(first, change{"c2.1", 50, renewed(first.row, 50)}), granted("c1.1", history.Lock, 9, 11, 2)), "renewed by somebody else"},
		{"granted while another held it", audited(chain(first, change{"c2.1", 30, bareFrom("c2.1", 30, 3)}), grant1, granted("c2.1", history.Lock, 5, 31, 3)), "while another held it"},
		{"a grant that isn't there", audited(chain(first, freed3), grant1, free1, grant2), "was not committed"},
		{"released by another", audited(chain(first, change{"c2.1", 20, freeSince(20, 3)}), grant1), "released by"},
		{"a grant of which nothing was left", audited(chain(first, change{"c3.1", 120, freeSince(119, 3)}), grant1, waits), ""},
		{"the same of a free lock", audited(chain(first, freed3, change{"c3.1", 60, freeSince(40, 4)}), grant1, free1, waits), ""},
		{"a first grant of which nothing was left", audited(chain(change{"c3.1", 60, freeSince(40, 2)}), waits), ""},
		{
			"a lease by hand of which nothing was left", audited(chain(first, freed3, change{"c3.1", 60, freeSince(40, 4)}), grant1, free1,
				op("c3.1", history.Acquire, 29, 62, history.Event{Outcome: history.OK, Token: 4, Expires: 40 * us})), "",
		},
		{
			"the same with another end", audited(chain(first, freed3, change{"c3.1", 60, freeSince(40, 4)}), grant1, free1,
				op("c3.1", history.Acquire, 29, 62, history.Event{Outcome: history.OK, Token: 4, Expires: 41 * us})), "was not committed",
		},
		{
			"a grant of which little was left, and that was refreshed",
			audited(chain(first, freed3, change{"c2.1", 30, bareFrom("c2.1", 30, 4)}, change{"c2.1", 31, bareFrom("c2.1", 31, 5)}),
				grant1, free1, granted("c2.1", history.Acquire, 29, 32, 5)), "",
		},
		{
			"a grant that nobody asked for", audited(chain(first, freed3, second), grant1, free1), "every request was refused",
		},
		{
			"a grant that was refused", audited(chain(first, freed3, second), grant1, free1,
				op("c2.1", history.Acquire, 29, 32, history.Event{Outcome: history.Refused})), "every request was refused",
		},
	} {
		// One after the other: they share operations, which onBare changes.
		t.Run(test.name, func(t *testing.T) {
			settled, violations := oracle.Settle(onBare(test.run))
			wantOnly(t, violations, oracle.Audit, test.want)

			if test.want == "" {
				violations, _ := oracle.CheckLinearizability(test.run, settled)
				wantOnly(t, violations, oracle.Linearizability, "")
			}
		})
	}
}

// TestRelockers: a lease ran when its relocker was told to stop, and released it then.
func TestRelockers(t *testing.T) {
	t.Parallel()

	var (
		first = change{"c1.1", 10, heldFrom("c1.1", 10, 2)}
		again = change{"c1.1", 90, renewed(first.row, 90)}
		grant = granted("c1.1", history.Acquire, 9, 11, 2)
	)

	// kept is a run in which a relocker was told to stop at a moment.
	kept := func(stopped int64, outcome history.Outcome, changes ...change) *oracle.Run {
		relock := op("c1.1", history.Relock, 15, stopped+2, history.Event{Outcome: outcome, Generation: 2})
		last := changes[len(changes)-1].row.Expires / us
		changes = append(changes, change{"c1.1", min(stopped+1, last-1), freeSince(stopped+1, 3)})
		r := audited(chain(changes...), grant, relock)
		r.History.Notes = []history.Event{note("c1.1", history.Lost, stopped, history.Event{
			Lock: "a", Token: 2, Detail: traffic.RelockerStopped,
		})}

		return r
	}

	const over = "a relocker kept a lease that was over"

	for _, test := range []struct {
		name string
		run  *oracle.Run
		want string
	}{
		{"renewed", kept(150, history.OK, first, again), ""},
		{"renewed, and over", kept(198, history.OK, first, again), over},
		{"renewed, and over, which its clock may not tell", kept(194, history.OK, first, again), ""},
		{"renewed, over, and not released", kept(198, history.Unknown, first, again), ""},
		{"never renewed, of which it knows nothing", kept(114, history.OK, first), ""},
		{"never renewed, for longer than a lease", kept(118, history.OK, first), over},
		{"the clock was set ahead", clocked(kept(198, history.OK, first, again), set(100, 101, 500)), ""},
		{"lost by a promotion", clocked(kept(118, history.OK, first), note("coordinator", history.Loss, 60, history.Event{From: 40 * ms})), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			_, violations := oracle.Settle(test.run)
			wantOnly(t, violations, oracle.Audit, test.want)
		})
	}
}
