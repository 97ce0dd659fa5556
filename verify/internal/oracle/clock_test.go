package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// clocked is a run in which the database's clock was set.
func clocked(r *oracle.Run, sets ...history.Event) *oracle.Run {
	r.History.Notes = append(r.History.Notes, sets...)

	return r
}

// TestClockSet: what the database says of times is held against the clock that it had, with
// every doubt about when it was set, and no other.
func TestClockSet(t *testing.T) {
	t.Parallel()

	var (
		back  = set(1000, 1001, -500)
		ahead = set(1000, 1001, 500)

		// The first lease begins at 900 and ends at 1000.
		first  = change{"c1.1", 900, heldFrom("c1.1", 900, 2)}
		grant1 = granted("c1.1", history.Acquire, 899, 901, 2)
	)

	// second is granted at a time of the database, in a call.
	second := func(at, from, to int64) (change, *history.Operation) {
		return change{"c2.1", at, heldFrom("c2.1", at, 3)}, granted("c2.1", history.Acquire, from, to, 3)
	}
	busy := func(from, to, remaining int64) *history.Operation {
		return op("c3.1", history.TryLock, from, to, history.Event{Outcome: history.Busy, Token: 2, Remaining: remaining * us})
	}
	guards := func(from, to int64) *history.Operation {
		return op("c1.1", history.Guard, from, to, history.Event{Outcome: history.OK, Generation: 2})
	}
	with := func(at, from, to int64, more ...*history.Operation) *oracle.Run {
		c, o := second(at, from, to)

		return audited(chain(first, c), append([]*history.Operation{grant1, o}, more...)...)
	}
	alone := func(more ...*history.Operation) *oracle.Run {
		return audited(chain(first), append([]*history.Operation{grant1}, more...)...)
	}
	held := func(released, hold int64) *oracle.Run {
		return audited(chain(first, change{"c1.1", released, freeSince(released+hold, 3)}),
			op("c1.1", history.Lock, 899, 901, history.Event{
				Outcome: history.OK, Token: 2, Owner: owner("c1.1", "c"), Acquired: 900 * us,
			}),
			op("c1.1", history.Unlock, 1200, 1202, history.Event{Outcome: history.OK, Generation: 2, MinHold: 400 * ms}))
	}
	silent := func(at, from, to int64) *oracle.Run {
		c, _ := second(at, 0, 1)

		return audited(chain(first, c), grant1, unknown("c2.1", history.Acquire, from, to))
	}

	for _, test := range []struct {
		name                 string
		run                  *oracle.Run
		wantAudit, wantModel string
	}{
		// Taken before or after the end of the lease, as the clock has it.
		{"taken once the clock was there", clocked(with(1001, 1500, 1503), back), "", ""},
		{"taken before the clock was there", clocked(with(900, 1400, 1402), back), "while another held it", "not linearizable"},
		{"taken because the clock was ahead", clocked(with(1510, 1009, 1011), ahead), "", ""},
		{"taken before the end though the clock was ahead", clocked(with(950, 949, 951), ahead), "while another held it", "not linearizable"},
		{"taken as the clock was set back", clocked(with(503, 999, 1003), back), "", ""},
		{"taken long after the clock was set back", clocked(with(700, 1199, 1201), back), "while another held it", "not linearizable"},
		{
			"taken by a request that began after the lease had ended and before the clock was set back",
			clocked(with(700, 999, 1201), set(1010, 1011, -500)), "", "",
		},

		// Busy for as long as the clock at that moment leaves of it.
		{"busy, by a clock that was set back", clocked(alone(busy(1299, 1301, 200)), back), "", ""},
		{"busy, by a clock that was not yet set back", clocked(alone(busy(949, 951, 550)), back), "", "not linearizable"},
		{"busy, by the clock as it was", clocked(alone(busy(1299, 1301, -300)), back), "", "not linearizable"},
		{"busy, while it was set back", clocked(alone(busy(998, 1003, 499)), back), "", ""},
		{"busy, by a clock that is ahead", clocked(alone(busy(1100, 1102, 300)), ahead), "", "not linearizable"},

		{"guarded, by a clock that was set back", clocked(alone(guards(1300, 1302)), back), "", ""},
		{"guarded after the end by that clock", clocked(alone(guards(1600, 1602)), back), "", "not linearizable"},
		{"guarded, by a clock that is ahead", clocked(alone(guards(1102, 1104)), ahead), "", "not linearizable"},

		// The rest of a minimum hold of 400 that was given up at 1201 is 99.
		{"held for the minimum, by a clock that was set back", clocked(held(701, 99), back), "", ""},
		{"not held for the minimum, though the clock was set back", clocked(held(701, 50), back), "minimum hold", ""},
		{"held for the minimum", held(1201, 99), "", ""},
		{"not held for the minimum", held(1201, 50), "minimum hold", ""},

		// A grant that nobody was told of is of a moment at which the clock showed its time.
		{"granted to who asked before", clocked(silent(1005, 1503, 1600), back), "", ""},
		{"granted to who asked long after", clocked(silent(1005, 1700, 1800), back), "every request was refused", ""},
		{"granted at one of two moments", clocked(silent(990, 1480, 1490), set(995, 996, -500)), "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			settled, violations := oracle.Settle(test.run)
			wantOnly(t, violations, oracle.Audit, test.wantAudit)

			violations, _ = oracle.CheckLinearizability(test.run, settled)
			wantOnly(t, violations, oracle.Linearizability, test.wantModel)
		})
	}
}

// TestRealTime: a process that doesn't run between reading this machine's clock and reading how far it is set ahead
// writes down a time that the clock never showed. Then it counts when it was written down.
func TestRealTime(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name     string
		from, to int64
		want     string
	}{
		{"written down once the clock had been set ahead, and back", 1302, 1312, ""},
		{"written down before the clock was set ahead", 945, 949, "while another held it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			// The first lease ends at 1000. By 961 the clock showed 1461. The process goes on after 1300.
			run := clocked(audited(
				chain(change{"c1.1", 900, heldFrom("c1.1", 900, 2)}, change{"c2.1", 761, heldFrom("c2.1", 1461, 3)}),
				granted("c1.1", history.Acquire, 899, 901, 2), granted("c2.1", history.Acquire, 940, 1320, 3),
			), set(950, 951, 500), set(1300, 1301, -200))
			run.Audit[1].From, run.Audit[1].To = test.from*ms, test.to*ms

			_, violations := oracle.Settle(run)
			wantOnly(t, violations, oracle.Audit, test.want)
		})
	}
}

// TestReleaseAfterTheAnswer: a release is taken for one that was lost if the transition that
// shows it is from later than the answer, by the clock that there was.
func TestReleaseAfterTheAnswer(t *testing.T) {
	t.Parallel()

	// freed at a time of the database, and by an answer that came at 1201.
	freedAt := func(at int64, sets ...history.Event) *oracle.Run {
		return clocked(audited(
			chain(change{"c1.1", 1100, heldFrom("c1.1", 1100, 2)}, change{"c1.1", at, freeSince(at, 3)}),
			granted("c1.1", history.Acquire, 1099, 1101, 2), freed("c1.1", history.Release, 1199, 1201, 2),
		), sets...)
	}

	for _, test := range []struct {
		name string
		run  *oracle.Run
		want string
	}{
		{"in time", freedAt(1200), ""},
		{"later", freedAt(1300), "not committed, or lost"},
		{"in time, by a clock that was set ahead", freedAt(1700, set(1150, 1151, 500)), ""},
		{"later, by a clock that was set back", freedAt(1300, set(1150, 1151, -50)), "not committed, or lost"},
		{"perhaps in time, by a clock that showed it twice", freedAt(1150, set(1190, 1191, -100)), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			_, violations := oracle.Settle(test.run)
			wantOnly(t, violations, oracle.Audit, test.want)
		})
	}
}
