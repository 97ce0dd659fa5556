package mutant

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/fault"
)

// TestAll: every mutant still finds in the library what it breaks, once, and the fault
// under which it shows.
func TestAll(t *testing.T) {
	t.Parallel()

	const source = "../../.."

	names := make(map[string]bool)

	for _, m := range All() {
		if names[m.Name] {
			t.Errorf("two mutants are called %q", m.Name)
		}

		names[m.Name] = true

		files, err := m.apply(source)
		if err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}

		for name, mutated := range files {
			original, err := os.ReadFile(filepath.Join(source, name))
			if err != nil {
				t.Fatal(err)
			}

			if string(original) == mutated {
				t.Errorf("%s changes nothing in %s", m.Name, name)
			}
		}

		faults := fault.All()
		if len(m.Flags) > 0 {
			faults = fault.HA()
		}

		if !slices.ContainsFunc(faults, func(f fault.Fault) bool { return f.Name == m.Fault }) {
			t.Errorf("%s: no fault is called %q", m.Name, m.Fault)
		}
	}
}

// TestApply: all edits are made, also several of one file, and an edit that doesn't fit is
// refused.
func TestApply(t *testing.T) {
	t.Parallel()

	folder := t.TempDir()

	for name, text := range map[string]string{"a": "one two two", "b": "three"} {
		if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	m := Mutant{Edits: []Edit{{"a", "one", "1"}, {"b", "three", "3"}, {"a", "1 two", "12"}}}

	files, err := m.apply(folder)
	if err != nil || len(files) != 2 || files["a"] != "12 two" || files["b"] != "3" {
		t.Errorf("%q, %v", files, err)
	}

	for _, e := range []Edit{{"a", "three", ""}, {"a", "two", ""}, {"c", "one", ""}} {
		if files, err := (Mutant{Edits: []Edit{e}}).apply(folder); err == nil {
			t.Errorf("%+v makes %q", e, files)
		}
	}
}

// TestControls: what the mutants need is run on the library as it is, each fault once.
func TestControls(t *testing.T) {
	t.Parallel()

	got := controls([]Mutant{
		{Fault: "none"}, {Fault: "net-late"}, {Fault: "failover", Flags: []string{"-ha"}}, {Fault: "none"},
	})

	if len(got) != 2 || got[0].Fault != "none,net-late" || got[1].Fault != "failover" || got[1].Flags[0] != "-ha" {
		t.Errorf("%+v", got)
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

	const row = "3081     368      106   0   0   0   0   0   0\n    all"

	skipped := strings.Replace(table, row, "0 0 0 skipped skipped skipped skipped skipped skipped\n    all", 1)
	if caught, err := columns([]byte(skipped)); !errors.Is(err, errSkipped) {
		t.Errorf("%v, %v, want to know that it was skipped", caught, err)
	}

	broken := strings.Replace(table, row, "0 0 0 error error error error error error\n    all", 1)
	if caught, err := columns([]byte(broken)); err == nil {
		t.Errorf("%v read from a run that could not be made", caught)
	}

	if caught, err := columns([]byte("seed 1\nverify: it broke\n")); err == nil {
		t.Errorf("%v read from no table", caught)
	}
}
