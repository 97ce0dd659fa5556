package mutant

import (
	"context"
	"errors"
	"go/scanner"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/fault"
	"github.com/ismurov/pglocker/verify/internal/oracle"
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

		if len(m.Expect) == 0 {
			t.Errorf("%s: nobody is expected to catch it", m.Name)
		}

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

// TestCompiles: the library with a mutant's edits still compiles. One that changes nothing but texts and comments
// does so for certain.
func TestCompiles(t *testing.T) {
	t.Parallel()

	source, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}

	compiled := 0

	for _, m := range All() {
		files, err := m.apply(source)
		if err != nil {
			continue // TestAll says so
		}

		args := []string{"-o", os.DevNull}

		for name, mutated := range files {
			original, err := os.ReadFile(filepath.Join(source, name))
			if err != nil {
				t.Fatal(err)
			}

			if !slices.Equal(tokens(string(original)), tokens(mutated)) {
				args = append(args, "./"+path.Dir(name))
			}
		}

		if len(args) == 2 {
			continue
		}

		compiled++

		if err := m.compile(t.Context(), source, t.TempDir(), ".", args...); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
	}

	if compiled == 0 || compiled == len(All()) {
		t.Errorf("%d of %d mutants change more than texts", compiled, len(All()))
	}
}

// tokens are those of Go code, but for comments and what stands in texts.
func tokens(code string) (all []string) {
	var s scanner.Scanner

	s.Init(token.NewFileSet().AddFile("", -1, len(code)), []byte(code), nil, 0)

	for {
		_, kind, text := s.Scan()
		if kind == token.STRING {
			text = ""
		}

		all = append(all, kind.String()+text)

		if kind == token.EOF {
			return all
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
  fault  seconds  operations  grants  unknown  O1  O2  O3  O4  O5  O6  O7  O8
   none      4.7        3081     368      106   0   0   0   0   0   0   0   0
    all      4.7        3081     368      106   0   2   0   1   0   0   0   0
verify: promises were broken
`

	caught, err := columns([]byte(table))
	if err != nil || !slices.Equal(caught, []oracle.Name{oracle.Beliefs, oracle.Fencing}) {
		t.Errorf("%v, %v, want O2 and O4", caught, err)
	}

	const row = "3081     368      106   0   0   0   0   0   0   0   0\n    all"

	skipped := strings.Replace(table, row, "0 0 0 skipped skipped skipped skipped skipped skipped skipped skipped\n    all", 1)
	if caught, err := columns([]byte(skipped)); !errors.Is(err, errSkipped) {
		t.Errorf("%v, %v, want to know that it was skipped", caught, err)
	}

	broken := strings.Replace(table, row, "0 0 0 error error error error error error error error\n    all", 1)
	if caught, err := columns([]byte(broken)); err == nil {
		t.Errorf("%v read from a run that could not be made", caught)
	}

	if caught, err := columns([]byte("seed 1\nverify: it broke\n")); err == nil {
		t.Errorf("%v read from no table", caught)
	}
}

// TestVerdict: a run that failed without a complaint has no verdict.
func TestVerdict(t *testing.T) {
	t.Parallel()

	const quiet, loud = "all 1 1 1 0 0 0 0 0 0 0 0\n", "all 1 1 1 0 0 0 0 1 0 0 0\n"

	if caught, err := verdict([]byte(quiet), true); err != nil || len(caught) > 0 {
		t.Errorf("%v, %v, want nobody", caught, err)
	}

	if caught, err := verdict([]byte(loud), false); err != nil || !slices.Equal(caught, []oracle.Name{oracle.Audit}) {
		t.Errorf("%v, %v, want O5", caught, err)
	}

	if caught, err := verdict([]byte(quiet), false); err == nil {
		t.Errorf("%v of a run that proves nothing", caught)
	}
}

// TestChase: an oracle that should catch a mutant ends the chase, and no other does. A run that
// can't be made is made with the next seed, until too many have failed. No oracle may complain of
// the library as it is, in two runs.
func TestChase(t *testing.T) {
	t.Parallel()

	broken := errors.New("broken")
	m := Mutant{Edits: []Edit{{}}, Expect: []oracle.Name{oracle.Fencing}}

	type run struct {
		by  []oracle.Name
		err error
	}

	by := func(names ...oracle.Name) run { return run{by: names} }
	failed := run{err: broken}

	for _, test := range []struct {
		name  string
		m     Mutant
		runs  []run
		by    []oracle.Name
		tries int
		err   error
	}{
		{"caught at once", m, []run{by(oracle.Fencing)}, []oracle.Name{oracle.Fencing}, 1, nil},
		{
			"caught after others complained", m,
			[]run{by(oracle.Audit), by(), by(oracle.Tokens, oracle.Fencing)},
			[]oracle.Name{oracle.Tokens, oracle.Fencing, oracle.Audit},
			3, nil,
		},
		{"others alone", m, slices.Repeat([]run{by(oracle.Audit)}, tries), []oracle.Name{oracle.Audit}, tries, nil},
		{"survived", m, slices.Repeat([]run{by()}, tries), nil, tries, nil},
		{"failed now and then", m, []run{failed, failed, by(), failed, by(oracle.Fencing)}, []oracle.Name{oracle.Fencing}, 2, nil},
		{"failed for good", m, []run{by(), failed, failed, failed}, nil, 1, broken},
		{"skipped", m, []run{{err: errSkipped}}, nil, 0, errSkipped},
		{"quiet control", Mutant{}, []run{by(), by()}, nil, 2, nil},
		{"control that cries", Mutant{}, []run{by(), by(oracle.Healing)}, []oracle.Name{oracle.Healing}, 2, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			const first = 7

			made := 0

			f, err := test.m.chase(context.Background(), func(seed uint64) ([]oracle.Name, error) {
				if made == len(test.runs) || seed != first+uint64(made) {
					t.Fatalf("run %d has seed %d", made, seed)
				}

				made++

				return test.runs[made-1].by, test.runs[made-1].err
			}, first)

			if made != len(test.runs) || !slices.Equal(f.by, test.by) || f.tries != test.tries || !errors.Is(err, test.err) {
				t.Errorf("%d runs, %v in %d tries, %v", made, f.by, f.tries, err)
			}
		})
	}
}

// TestLines: the suite's line for each fault is passed on, also where it comes in pieces.
func TestLines(t *testing.T) {
	t.Parallel()

	var passed strings.Builder

	l := &lines{to: &passed}
	for _, piece := range []string{"seed 1\nnet-", "late: 7 operations, 2 violat", "ions in 4.1 s\nO5 a: b\n", "none: 1 operations, 0 violations in 2.0 s"} {
		if n, err := l.Write([]byte(piece)); n != len(piece) || err != nil {
			t.Errorf("%d, %v of %q", n, err, piece)
		}
	}

	if want := "        net-late: 7 operations, 2 violations in 4.1 s\n"; passed.String() != want {
		t.Errorf("%q, want %q", passed.String(), want)
	}
}
