package oracle_test

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// after is a token of the second timeline.
func after(n int64) int64 { return 1<<40 + n }

// during adds notes of such kinds, from one millisecond to another.
func during(r *oracle.Run, from, to int64, kinds ...history.Kind) *oracle.Run {
	for _, kind := range kinds {
		r.History.Notes = append(r.History.Notes, note("coordinator", kind, to, history.Event{From: from * ms}))
	}

	return r
}

// left adds that an old primary went on granting to a client.
func left(r *oracle.Run, client string, from, to int64) *oracle.Run {
	r.History.Notes = append(r.History.Notes,
		note("coordinator", history.OldPrimary, to, history.Event{From: from * ms, Detail: client}))

	return r
}

// TestLostBeliefs: a promotion that lost commits explains that two believe, for as long as
// leases last. One that lost none explains nothing.
func TestLostBeliefs(t *testing.T) {
	t.Parallel()

	// until is a grant that is believed in until then.
	until := func(client string, from, to, end, token int64) *history.Operation {
		o := granted(client, history.Acquire, from, to, token)
		o.Until = end * ms

		return o
	}

	lost := func(ops ...*history.Operation) *oracle.Run {
		return during(run(ops...), 20, 40, history.Failover, history.Loss)
	}

	for _, test := range []struct {
		name string
		run  *oracle.Run
		want string
		// overlaps and longest are what is measured.
		overlaps int
		longest  time.Duration
	}{
		{
			name: "a lost grant, and the next by the new primary",
			run:  lost(until("c1.1", 25, 26, 120, 5), until("c2.1", 45, 50, 150, after(1))), overlaps: 1, longest: 70 * time.Millisecond,
		},
		{
			name: "nothing was lost",
			run:  during(run(until("c1.1", 25, 26, 120, 5), until("c2.1", 45, 50, 150, after(1))), 20, 40, history.Failover),
			want: "two believe",
		},
		{
			name: "two grants by the same primary",
			run:  lost(until("c1.1", 25, 26, 120, 5), until("c2.1", 30, 31, 150, 6)), want: "two believe",
		},
		{
			name: "two grants by the new primary, behind a lost one that lasts longer",
			run: lost(until("c1.1", 25, 26, 120, 5), until("c2.1", 45, 50, 90, after(1)),
				until("c3.1", 60, 70, 80, after(2))),
			want: "two believe", overlaps: 2, longest: 40 * time.Millisecond,
		},
		{
			name: "one that believes for longer than a lease after the loss",
			run:  lost(until("c1.1", 25, 26, 200, 5), until("c2.1", 45, 50, 190, after(1))), want: "two believe",
		},
		{
			name: "granted after the loss",
			run:  lost(until("c1.1", 45, 46, 130, 5), until("c2.1", 47, 50, 130, after(1))), want: "two believe",
		},
		{
			name: "asked for before the end of the loss, and told of it a moment later",
			run:  lost(until("c1.1", 39, 42, 101, 5), until("c2.1", 30, 35, 130, after(1))), overlaps: 1, longest: 59 * time.Millisecond,
		},
		{
			name: "both before the loss",
			run:  lost(until("c1.1", 1, 2, 50, 5), until("c2.1", 3, 10, 60, after(1))), want: "two believe",
		},
		{
			name: "kept at the new primary, and granted by the old one",
			run:  left(lost(until("c1.1", 1, 2, 101, 5), until("c2.1", 30, 35, 130, 6)), "c2.1", 20, 40), overlaps: 1, longest: 66 * time.Millisecond,
		},
		{
			name: "two at the old primary",
			run: left(left(lost(until("c1.1", 21, 22, 101, 5), until("c2.1", 30, 35, 130, 6)),
				"c2.1", 20, 40), "c1.1", 20, 40),
			want: "two believe",
		},
		{
			name: "left at the old primary was another",
			run:  left(lost(until("c1.1", 1, 2, 101, 5), until("c2.1", 30, 35, 130, 6)), "c3.1", 20, 40), want: "two believe",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantOnly(t, oracle.CheckBeliefs(test.run), oracle.Beliefs, test.want)

			settled, _ := oracle.Settle(test.run)
			if got := oracle.Measure(test.run, settled); got.Count != test.overlaps || got.Longest != test.longest {
				t.Errorf("measured %d overlaps, for %s at most; want %d, %s", got.Count, got.Longest, test.overlaps, test.longest)
			}
		})
	}
}

// TestOldTokens: an old primary that is left to grant may issue smaller tokens. No other server
// may, and none may issue equal ones.
func TestOldTokens(t *testing.T) {
	t.Parallel()

	lost := func(ops ...*history.Operation) *oracle.Run {
		return during(run(ops...), 20, 40, history.Failover, history.Loss)
	}
	newer := granted("c2.1", history.Lock, 22, 25, after(1))

	for _, test := range []struct {
		name    string
		run     *oracle.Run
		want    string
		smaller int
	}{
		{name: "who was left there", run: left(lost(newer, granted("c1.1", history.Acquire, 30, 31, 5)), "c1.1", 20, 40), smaller: 1},
		{
			name: "who was left there, and got smaller ones", run: left(lost(newer,
				granted("c1.1", history.Acquire, 26, 27, 6), granted("c1.1", history.Acquire, 30, 31, 5)), "c1.1", 20, 40),
			want: "no larger token", smaller: 1,
		},
		{name: "another", run: left(lost(newer, granted("c3.1", history.Acquire, 30, 31, 5)), "c1.1", 20, 40), want: "no larger token"},
		{name: "later", run: left(lost(newer, granted("c1.1", history.Acquire, 41, 42, 5)), "c1.1", 20, 40), want: "no larger token"},
		{name: "nobody was left", run: lost(newer, granted("c1.1", history.Acquire, 30, 31, 5)), want: "no larger token"},
		{
			name: "smaller by the new primary",
			run: left(lost(granted("c2.1", history.Lock, 22, 25, after(2)), granted("c1.1", history.Acquire, 30, 31, after(1))),
				"c1.1", 20, 40),
			want: "no larger token",
		},
		{
			name: "the same",
			run:  left(lost(granted("c2.1", history.Lock, 22, 31, 5), granted("c1.1", history.Acquire, 30, 32, 5)), "c1.1", 20, 40),
			want: "the same token",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			wantOnly(t, oracle.CheckTokens(test.run), oracle.Tokens, test.want)

			settled, _ := oracle.Settle(test.run)
			if got := oracle.Measure(test.run, settled).Smaller; got != test.smaller {
				t.Errorf("measured %d smaller tokens, want %d", got, test.smaller)
			}
		})
	}
}

// TestSettleFailover: a promotion may undo releases. Grants, and releases with a minimum
// hold, it may undo only if it lost commits, and only those of that time.
func TestSettleFailover(t *testing.T) {
	t.Parallel()

	var (
		first   = change{"c1.1", 10, heldFrom("c1.1", 10, 2)}
		grant1  = granted("c1.1", history.Acquire, 9, 11, 2)
		lost    = granted("c2.1", history.Lock, 25, 26, 4)
		minimum = op("c1.1", history.Unlock, 25, 26, history.Event{Outcome: history.OK, Generation: 2, MinHold: 50 * ms})
	)

	for _, test := range []struct {
		name string
		run  *oracle.Run
		want string
		// grants are those that were measured as lost.
		grants int
	}{
		{name: "a grant", run: during(audited(chain(first), grant1, lost), 20, 40, history.Failover, history.Loss), grants: 1},
		{
			name: "a grant that was to be kept",
			run:  during(audited(chain(first), grant1, lost), 20, 40, history.Failover), want: "not committed, or lost",
		},
		{
			name: "a grant from before the loss",
			run:  during(audited(chain(first), grant1, lost), 30, 40, history.Failover, history.Loss), want: "not committed, or lost",
		},
		{
			name: "a grant from after the loss",
			run:  during(audited(chain(first), grant1, lost), 20, 24, history.Failover, history.Loss), want: "not committed, or lost",
		},
		{name: "a release", run: during(audited(chain(first), grant1, freed("c1.1", history.Release, 25, 26, 2)), 20, 40, history.Failover)},
		{
			name: "a release after the failover",
			run:  during(audited(chain(first), grant1, freed("c1.1", history.Release, 45, 46, 2)), 20, 40, history.Failover),
			want: "release was not committed, or lost",
		},
		{
			name: "a release after the failover, of a grant that was lost",
			run: during(audited(chain(first), grant1, lost, freed("c2.1", history.Unlock, 45, 46, 4)), 20, 40,
				history.Failover, history.Loss),
			grants: 1,
		},
		{
			name: "a minimum hold",
			run:  during(audited(chain(first), grant1, minimum), 20, 40, history.Failover), want: "release was not committed, or lost",
		},
		{name: "a minimum hold among lost commits", run: during(audited(chain(first), grant1, minimum), 20, 40, history.Failover, history.Loss)},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			settled, violations := oracle.Settle(test.run)
			wantOnly(t, violations, oracle.Audit, test.want)

			if got := oracle.Measure(test.run, settled).Grants; got != test.grants {
				t.Errorf("measured %d lost grants, want %d", got, test.grants)
			}
		})
	}
}

// TestLinearizabilityFailover: answers from the time of a failover may be the old
// primary's, and don't count. What changed the row does, and so do all other answers.
func TestLinearizabilityFailover(t *testing.T) {
	t.Parallel()

	var (
		first  = change{"c1.1", 10, heldFrom("c1.1", 10, 2)}
		grant1 = granted("c1.1", history.Acquire, 9, 11, 2)
		next   = change{"c2.1", 120, heldFrom("c2.1", 120, after(1))}
		grant2 = granted("c2.1", history.Acquire, 119, 121, after(1))
		busy   = func(from, to, token int64) *history.Operation {
			return op("c3.1", history.TryLock, from, to, history.Event{Outcome: history.Busy, Token: token})
		}
	)

	for _, test := range []struct {
		name string
		ops  []*history.Operation
		want string
	}{
		{name: "no failover in sight", ops: []*history.Operation{grant1, busy(15, 16, 2), grant2, busy(130, 131, after(1))}},
		{name: "what the old primary shows", ops: []*history.Operation{grant1, busy(25, 26, 3), grant2}},
		{name: "what nobody can show before", ops: []*history.Operation{grant1, busy(15, 16, 9), grant2}, want: "not linearizable"},
		{name: "what nobody can show after", ops: []*history.Operation{grant1, grant2, busy(130, 131, 2)}, want: "not linearizable"},
		{
			name: "a grant within that comes out of order",
			ops: []*history.Operation{
				granted("c1.1", history.Acquire, 30, 31, 2), granted("c2.1", history.Acquire, 21, 22, after(1)),
			},
			want: "not linearizable",
		},
		{
			name: "a release that is lost, and another is granted the lock at the end of the lease",
			ops:  []*history.Operation{grant1, freed("c1.1", history.Release, 15, 16, 2), grant2},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := during(audited([]*audit.Transition(chain(first, next)), test.ops...), 20, 40, history.Failover)
			settled, _ := oracle.Settle(r)
			violations, _ := oracle.CheckLinearizability(r, settled)
			wantOnly(t, violations, oracle.Linearizability, test.want)
		})
	}
}
