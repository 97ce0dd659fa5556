package oracle

import "testing"

// TestSplitName: names of requests, of those that refresh a lock, and of later attempts.
func TestSplitName(t *testing.T) {
	t.Parallel()

	for name, want := range map[string]struct {
		locker string
		number int64
	}{
		"c1.1#abc.z":      {"c1.1#abc", 35},
		"c1.1#abc.10-2":   {"c1.1#abc", 36},
		"c1.1#abc.11+":    {"c1.1#abc", 37},
		"c1.1#abc.11+-12": {"c1.1#abc", 37},
	} {
		if locker, number := splitName(name); locker != want.locker || number != want.number {
			t.Errorf("%q is %q, %d, want %q, %d", name, locker, number, want.locker, want.number)
		}
	}
}
