package fault_test

import (
	"slices"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/fault"
)

// TestHA: the faults that bring their own servers have names of their own, and are in no
// mixture.
func TestHA(t *testing.T) {
	t.Parallel()

	var names []string

	for _, f := range fault.All() {
		names = append(names, f.Name)

		if f.Setup != nil || f.Inject == nil {
			t.Errorf("%s needs servers of its own, and is among those that don't", f.Name)
		}
	}

	for _, f := range fault.HA() {
		if slices.Contains(names, f.Name) {
			t.Errorf("two faults are called %s", f.Name)
		}

		names = append(names, f.Name)

		if f.Setup == nil || !f.Alone {
			t.Errorf("%s has no servers, or is for mixtures", f.Name)
		}
	}
}
