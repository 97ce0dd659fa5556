package fault_test

import (
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/fault"
)

// TestMixture: a seed always gives the same mixture, of faults that can be mixed, with no
// more than one that is done to the server as a whole, and with all that they need. None is
// left out.
func TestMixture(t *testing.T) {
	t.Parallel()

	byName := make(map[string]fault.Fault)
	for _, f := range fault.All() {
		if _, twice := byName[f.Name]; twice {
			t.Errorf("two faults are called %s", f.Name)
		}

		if f.Clock && !f.Server || f.Disk && !f.Server {
			t.Errorf("%s has the server for itself, and doesn't say so", f.Name)
		}

		byName[f.Name] = f
	}

	different, mixed := make(map[string]bool), make(map[string]bool)

	for seed := range uint64(200) {
		draw := func() fault.Fault { return fault.Mixture(rand.New(rand.NewPCG(seed, 0)), 4, fault.Any) }

		mixture := draw()
		if again := draw().With; again != mixture.With {
			t.Errorf("seed %d: %s, and then %s", seed, mixture.With, again)
		}

		different[mixture.With] = true

		servers := 0
		pooled, clock, disk := false, false, false

		for name := range strings.SplitSeq(mixture.With, ", ") {
			f, ok := byName[name]
			if !ok || f.Alone {
				t.Errorf("seed %d: %s can't be mixed", seed, name)
			}

			if f.Server {
				servers++
			}

			mixed[name] = true
			pooled, clock, disk = pooled || f.Pooled, clock || f.Clock, disk || f.Disk
		}

		if servers > 1 {
			t.Errorf("seed %d: %s", seed, mixture.With)
		}

		if mixture.Pooled != pooled || mixture.Clock != clock || mixture.Disk != disk || mixture.Server != (servers > 0) {
			t.Errorf("seed %d: %s: %+v", seed, mixture.With, mixture)
		}
	}

	if len(different) < 100 {
		t.Errorf("200 seeds give only %d mixtures", len(different))
	}

	for name, f := range byName {
		if !f.Alone && !mixed[name] {
			t.Errorf("%s is in none of 200 mixtures", name)
		}
	}
}

// TestMixtureOfSome: what won't do is in no mixture.
func TestMixtureOfSome(t *testing.T) {
	t.Parallel()

	for seed := range uint64(100) {
		mixture := fault.Mixture(rand.New(rand.NewPCG(seed, 0)), 4, func(f fault.Fault) bool { return !f.Pooled && !f.Clock })
		if mixture.Pooled || mixture.Clock || strings.Count(mixture.With, ", ") != 3 {
			t.Errorf("seed %d: %s", seed, mixture.With)
		}
	}
}

// TestFailoverMixture: a seed always gives the same one, of a failover in which all promises
// hold, and of faults that go with it.
func TestFailoverMixture(t *testing.T) {
	t.Parallel()

	byName := make(map[string]fault.Fault)
	for _, f := range append(fault.All(), fault.HA()...) {
		byName[f.Name] = f
	}

	const parts = 3

	ways, different := make(map[string]bool), make(map[string]bool)

	for seed := range uint64(100) {
		draw := func() fault.Fault { return fault.FailoverMixture(rand.New(rand.NewPCG(seed, 0)), parts) }

		mixture := draw()
		if again := draw().With; again != mixture.With {
			t.Errorf("seed %d: %s, and then %s", seed, mixture.With, again)
		}

		names := strings.Split(mixture.With, ", ")
		if way := byName[names[0]]; way.Setup == nil || way.Loses {
			t.Errorf("seed %d: %s doesn't begin with a failover that loses nothing", seed, mixture.With)
		}

		for _, name := range names[1:] {
			f, ok := byName[name]
			if !ok || f.Alone || f.Server || f.Pooled || f.Clock || f.Disk || f.Setup != nil || f.Name == "backend-cancel" {
				t.Errorf("seed %d: %s can't be mixed with a failover", seed, name)
			}
		}

		if len(names) != 1+parts {
			t.Errorf("seed %d: %s", seed, mixture.With)
		}

		ways[names[0]], different[mixture.With] = true, true
	}

	if len(ways) != 2 || len(different) < 80 {
		t.Errorf("100 seeds give %d ways to fail over, and %d mixtures", len(ways), len(different))
	}
}
