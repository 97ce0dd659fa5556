package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// TestFreed: a release or a creation comes from a request that wasn't refused.
func TestFreed(t *testing.T) {
	t.Parallel()

	var (
		first = change{"c1.1", 10, heldFrom("c1.1", 10, 2)}
		freed = change{"c1.1", 20, freeSince(20, 3)}
		made  = change{"c1.1", 5, freeSince(5, 1)}
		grant = granted("c1.1", history.Acquire, 9, 11, 2)
		held  = granted("c1.1", history.Lock, 9, 11, 2)
	)

	released := func(ops ...*history.Operation) *oracle.Run { return audited(chain(first, freed), ops...) }
	left := func(token int64) *oracle.Run {
		return clocked(released(held), note("c1.1", history.Lost, 15, history.Event{
			Lock: "a", Token: token, Detail: traffic.LeftToClose,
		}))
	}
	plain := func(run *oracle.Run) *oracle.Run {
		run.Extras.Plain = true

		return run
	}
	creates := func(client string, from int64, o history.Outcome) *history.Operation {
		return op(client, history.Create, from, from+5, history.Event{Outcome: o})
	}

	const (
		wrong   = "every request was refused"
		unasked = "didn't ask for it"
	)

	for _, test := range []struct {
		name string
		run  *oracle.Run
		want string
	}{
		{"whose reply was lost", released(grant, asked("c1.1", history.Release, history.Unknown, 2)), ""},
		{"that was refused", released(grant, asked("c1.1", history.Release, history.Refused, 2)), wrong},
		{"that was refused, and asked for again", released(grant,
			asked("c1.1", history.Release, history.Refused, 2), asked("c1.1", history.Release, history.Unknown, 2)), ""},
		{"that is another's, as it was told", released(grant, asked("c1.1", history.Release, history.OutcomeLost, 2)), wrong},
		{"that was lost, and freed as a courtesy", released(held, asked("c1.1", history.Unlock, history.OutcomeLost, 2)), ""},
		{"that its client could not unlock", released(held, asked("c1.1", history.Unlock, history.Refused, 2)), wrong},
		{"of another generation than was named", released(grant, asked("c1.1", history.Release, history.Unknown, 1)), wrong},
		{"before it was asked for", released(grant,
			op("c1.1", history.Release, 40, 50, history.Event{Outcome: history.Unknown, Generation: 2})), wrong},
		{"that nobody asked for", released(grant), wrong},
		{"of a grant that nobody was told of", released(unknown("c1.1", history.Acquire, 9, 50)), ""},
		{"by Close", left(2), ""},
		{"by Close, of another tenure", left(3), wrong},
		{"created, with a lost reply", audited(chain(made), creates("c1.1", 4, history.Unknown)), ""},
		{"created, and refused", audited(chain(made), creates("c1.1", 4, history.Refused)), unasked},
		{"created before it was asked for", audited(chain(made), creates("c1.1", 30, history.Unknown)), unasked},
		{"created for a grant", audited(chain(made), unknown("c1.1", history.Lock, 4, 50)), unasked},
		{"created for a grant, in the plain dialect", plain(audited(chain(made), unknown("c1.1", history.Lock, 4, 50))), ""},
		{"created for a look, in the plain dialect", plain(audited(chain(made), unknown("c1.1", history.Get, 4, 50))), unasked},
		{"created for another", audited(chain(made), creates("c2.1", 4, history.Unknown)), unasked},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			_, violations := oracle.Settle(test.run)
			wantOnly(t, violations, oracle.Audit, test.want)
		})
	}
}
