package model_test

import (
	"strings"
	"testing"

	"github.com/ismurov/pglocker/internal/model"
)

// TestLockAll: several locks are granted all or none, and no statements wait for each other.
func TestLockAll(t *testing.T) {
	t.Parallel()

	for mutant, want := range map[model.AllMutant]string{
		model.AllAsBuilt:   "",
		model.AllUncounted: "alone",
		model.AllUnchecked: "believes",
		model.AllUnlocked:  "believes",
		model.AllInLine:    "wait for each other",
	} {
		states, wrong := model.CheckAll(mutant)
		if (wrong == "") != (want == "") || !strings.Contains(wrong, want) {
			t.Errorf("mutant %d: %q in one of %d states, want %q", mutant, wrong, states, want)
		}

		t.Logf("mutant %d: %d states, %s", mutant, states, wrong)
	}
}
