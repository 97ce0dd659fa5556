package pglocker

import "testing"

// TestNothingObserved: without an observer and an error an operation allocates nothing for them.
func TestNothingObserved(t *testing.T) {
	ctx := t.Context()

	allocs := testing.AllocsPerRun(100, func() {
		_, end := watch{}.start(ctx, OperationRelease, "a", 1, 7)
		end(failed("release", "a", nil))
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}
