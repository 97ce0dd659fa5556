package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// TestRenewals: what a holder knew of its lease was committed, whatever came of it later.
func TestRenewals(t *testing.T) {
	t.Parallel()

	var (
		first = change{"c1.1", 10, heldFrom("c1.1", 10, 2)}
		again = change{"c1.1", 50, renewed(first.row, 50)}
		held  = granted("c1.1", history.Lock, 9, 11, 2)
		loss  = note("coordinator", history.Loss, 60, history.Event{From: 40 * ms})
	)

	// knew is a run in which the client knew at a moment that its lease lasts until another.
	knew := func(client string, at, token, until int64, changes ...change) *oracle.Run {
		r := audited(chain(changes...), held)
		r.History.Renewals = []history.Event{note(client, history.Renewed, at, history.Event{
			Lock: "a", Token: token, Expires: until * us,
		})}

		return r
	}

	for _, test := range []struct {
		name string
		run  *oracle.Run
		want string
	}{
		{"the lease that was granted", knew("c1.1", 12, 2, 110, first), ""},
		{"a renewal", knew("c1.1", 70, 2, 150, first, again), ""},
		{"a renewal, and another since", knew("c1.1", 70, 2, 110, first, again), ""},
		{"a renewal that isn't there", knew("c1.1", 70, 2, 150, first), "renewal was not committed"},
		{"a renewal by another end", knew("c1.1", 70, 2, 151, first, again), "renewal was not committed"},
		{"a renewal of another generation", knew("c1.1", 70, 3, 150, first, again), "renewal was not committed"},
		{"a renewal of another client", knew("c2.1", 70, 2, 150, first, again), "renewal was not committed"},
		{"which a crash doesn't excuse", crashed(knew("c1.1", 70, 2, 150, first), 51, 60), "renewal was not committed"},
		{"lost by a promotion", clocked(knew("c1.1", 70, 2, 150, first), loss), ""},
		{"lost, and the promotion that lost commits was later", clocked(knew("c1.1", 39, 2, 150, first), loss), "renewal was not committed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			_, violations := oracle.Settle(test.run)
			wantOnly(t, violations, oracle.Audit, test.want)
		})
	}
}
