//go:build unix

package main

import (
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// buildCommand builds the command as users have it.
func buildCommand(t *testing.T) string {
	t.Helper()

	path := filepath.Join(t.TempDir(), "pglocker")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}

	return path
}

// coldStart is how many times as long `pglocker run -n x true` may take as psql -c 'select 1' does.
const coldStart = 2.5

// TestRunColdStart compares the command to psql. They take turns, so that a busy machine slows all of them down.
// Debian's psql is a script that finds the program, which is measured too.
func TestRunColdStart(t *testing.T) {
	needs(t, "psql")

	if testing.Short() {
		t.Skip("it measures")
	}

	b := newBed(t)
	measured := [][]string{
		{buildCommand(t), "run", "-n", "x", "true"},
		{"psql", "-X", "-d", b.url, "-c", "select 1"},
	}

	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/psql"); len(found) > 0 {
		measured = append(measured, append([]string{found[len(found)-1]}, measured[1][1:]...))
	}

	times := make([][]time.Duration, len(measured))

	for range 25 {
		for i, args := range measured {
			cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
			cmd.Env = append(cleanEnvironment(), b.env...)
			began := time.Now()

			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%q: %v\n%s", args, err, out)
			}

			times[i] = append(times[i], time.Since(began))
		}
	}

	median := func(of []time.Duration) time.Duration {
		slices.Sort(of)

		return of[len(of)/2]
	}

	ours := median(times[0])

	for i, args := range measured[1:] {
		psql := median(times[i+1])
		ratio := float64(ours) / float64(psql)

		t.Logf("pglocker run -n x true takes %s, %s -c 'select 1' %s: %.2f times as long", ours, args[0], psql, ratio)

		if args[0] == "psql" && ratio > coldStart {
			t.Errorf("that is more than %.1f times", coldStart)
		}
	}
}
