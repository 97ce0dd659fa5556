package store_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

// TestBatchAllocations: what a pair of statements allocates hardly grows with their requests.
func TestBatchAllocations(t *testing.T) { // not in parallel: it counts allocations
	const few, many = 50, 500

	s, _ := newStore(t, "pgx")

	pairs := func(n int) float64 {
		asked := make([]*store.Asked, n)
		for i := range asked {
			id := fmt.Sprintf("a lock with a long name %d", i)
			asked[i] = &store.Asked{ID: id, Owner: "owner of " + id, TTL: time.Minute}
		}

		ask := func(verb string) {
			if err := store.AskTogether(t.Context(), s, verb, asked); err != nil {
				t.Fatal(err)
			}
		}

		ask("create")

		return testing.AllocsPerRun(20, func() {
			ask("acquire")

			for _, a := range asked {
				if !a.Matched || a.Row.Owner != a.Owner {
					t.Fatalf("%q wasn't granted to %q, but to %q (error: %v)", a.ID, a.Owner, a.Row.Owner, a.Err)
				}

				a.Generation = a.Row.Generation
			}

			ask("release")

			for _, a := range asked {
				if !a.Matched {
					t.Fatalf("%q wasn't released: %v", a.ID, a.Err)
				}
			}
		})
	}

	first := pairs(few)
	if each := (pairs(many) - first) / (many - few); each > 0.5 {
		t.Errorf("one more lock takes %.1f allocations, want none", each)
	}
}
