package mutant

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/fault"
)

// TestApply: every mutant still finds in the library what it breaks, and breaks nothing
// else.
func TestApply(t *testing.T) {
	t.Parallel()

	const source = "../../.."

	for _, m := range All() {
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()

			folder := t.TempDir()
			if err := m.copySource(folder, source); err != nil {
				t.Fatal(err)
			}

			original, err := os.ReadFile(filepath.Join(source, m.File))
			if err != nil {
				t.Fatal(err)
			}

			mutated, err := os.ReadFile(filepath.Join(folder, m.File))
			if err != nil {
				t.Fatal(err)
			}

			if string(original) == string(mutated) {
				t.Error("nothing was changed")
			}

			if back := strings.ReplaceAll(string(mutated), m.New, m.Old); back != string(original) {
				t.Error("more was changed than was to be")
			}

			known := slices.ContainsFunc(fault.All(), func(f fault.Fault) bool { return f.Name == m.Fault })
			if !known {
				t.Errorf("no fault is called %q", m.Fault)
			}
		})
	}

	gone := Mutant{Name: "gone", File: "doc.go", Old: "what was never there", New: ""}
	if err := gone.copySource(t.TempDir(), source); err == nil {
		t.Error("a mutant that changes nothing was made")
	}
}

// TestColumns: the oracles that found something are read from the suite's table.
func TestColumns(t *testing.T) {
	t.Parallel()

	const table = `seed 1
all is well so far
  fault  seconds  operations  grants  unknown  O1  O2  O3  O4  O5  O6
   none      4.7        3081     368      106   0   0   0   0   0   0
    all      4.7        3081     368      106   0   2   0   1   0   0
verify: promises were broken
`

	caught, err := columns([]byte(table))
	if err != nil || !slices.Equal(caught, []string{"O2", "O4"}) {
		t.Errorf("%v, %v, want O2 and O4", caught, err)
	}

	if caught, err := columns([]byte("seed 1\nverify: it broke\n")); err == nil {
		t.Errorf("%v read from no table", caught)
	}
}
