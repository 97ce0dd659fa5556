package main

import (
	"testing"

	"github.com/ismurov/pglocker/verify/internal/fault"
)

// TestRound: a round is every fault once, the control, and at least a third of mixtures, the
// same for the same seed and number, and others for others.
func TestRound(t *testing.T) {
	t.Parallel()

	const seed, rounds = 7, 5

	names, seeds, orders := make(map[string]int), make(map[uint64]bool), make(map[string]bool)

	for number := range rounds {
		order := ""
		again := round(seed, number)

		for i, job := range round(seed, number) {
			if job.Seed != again[i].Seed || job.Name() != again[i].Name() || job.Fault.With != again[i].Fault.With {
				t.Errorf("round %d, job %d is %s of %s, and then %s of %s", number, i,
					job.Name(), job.Fault.With, again[i].Name(), again[i].Fault.With)
			}

			names[job.Name()]++
			seeds[job.Seed] = true
			order += job.Name() + " "
		}

		orders[order] = true

		if len(again) != roundSize() {
			t.Errorf("round %d has %d jobs, not %d", number, len(again), roundSize())
		}
	}

	for _, f := range append(fault.All(), fault.Control()) {
		if names[f.Name] != rounds {
			t.Errorf("%s is in %d of %d rounds", f.Name, names[f.Name], rounds)
		}
	}

	if n := names["mixture"]; 3*n < rounds*roundSize() {
		t.Errorf("of %d jobs %d are mixtures", rounds*roundSize(), n)
	}

	if len(seeds) != rounds*roundSize() || len(orders) != rounds {
		t.Errorf("%d seeds for %d jobs, %d orders for %d rounds", len(seeds), rounds*roundSize(), len(orders), rounds)
	}

	if other := round(seed+1, 0); seeds[other[0].Seed] {
		t.Error("another seed gives the same jobs")
	}
}
