package oracle_test

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// TestPruned: a row may be pruned when it is free, and its tokens go on.
func TestPruned(t *testing.T) {
	t.Parallel()

	var (
		first  = []*history.Operation{granted("c1.1", history.Lock, 0, 2, 2), freed("c1.1", history.Unlock, 3, 5, 2)}
		gone   = audit.Version{}
		before = []change{{"c1.1", 1, heldFrom("c1.1", 1, 2)}, {"c1.1", 4, freeSince(4, 3)}}
	)

	for _, test := range []struct {
		name  string
		ops   []*history.Operation
		audit []change
		want  string
	}{
		{name: "and granted again", ops: append(first, granted("c2.1", history.Lock, 20, 22, 4)), audit: append(before,
			change{oracle.Pruner, 10, gone}, change{"c2.1", 21, heldFrom("c2.1", 21, 4)})},
		{name: "and began anew", ops: append(first, granted("c2.1", history.Lock, 20, 22, 2)), audit: append(before,
			change{oracle.Pruner, 10, gone}, change{"c2.1", 21, heldFrom("c2.1", 21, 2)}), want: "before it was pruned"},
		{name: "while it was held", ops: first[:1], audit: append(before[:1:1], change{oracle.Pruner, 10, gone}), want: "deleted"},
		{name: "by a client", ops: first, audit: append(before, change{"c1.1", 10, gone}), want: "deleted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := run(test.ops...)
			r.Pruned = true
			r.Audit = chain(test.audit...)

			settled, violations := oracle.Settle(r)
			wantOnly(t, violations, oracle.Audit, test.want)

			if linear, _ := oracle.CheckLinearizability(r, settled); test.want == "" {
				wantOnly(t, linear, oracle.Linearizability, "")
			}
		})
	}
}
