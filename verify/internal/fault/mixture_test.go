package fault_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/fault"
)

// TestMixture: a seed always gives the same mixture, of faults that can be mixed, with no
// more than one that takes the server away.
func TestMixture(t *testing.T) {
	t.Parallel()

	byName := make(map[string]fault.Fault)
	for _, f := range fault.All() {
		if _, twice := byName[f.Name]; twice {
			t.Errorf("two faults are called %s", f.Name)
		}

		byName[f.Name] = f
	}

	different := make(map[string]bool)

	for seed := range uint64(200) {
		draw := func() string { return fault.Mixture(rand.New(rand.NewPCG(seed, 0)), 4).With }

		with := draw()
		if again := draw(); again != with {
			t.Errorf("seed %d: %s, and then %s", seed, with, again)
		}

		different[with] = true
		servers := 0

		for name := range strings.SplitSeq(with, ", ") {
			f, ok := byName[name]
			if !ok || f.Alone || f.Pooled || f.Clock || f.Disk {
				t.Errorf("seed %d: %s can't be mixed", seed, name)
			}

			if f.Server {
				servers++
			}
		}

		if servers > 1 {
			t.Errorf("seed %d: %s", seed, with)
		}
	}

	if len(different) < 100 {
		t.Errorf("200 seeds give only %d mixtures", len(different))
	}
}
