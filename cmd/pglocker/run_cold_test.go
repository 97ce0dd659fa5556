//go:build unix

package main

import (
	"math"
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

// TestRunColdStart compares the command to psql. They take turns, and the faster quarter of each counts, so that what
// else the machine does counts less. On busy cores the command waits more often than psql does, so the best of a few
// attempts counts.
func TestRunColdStart(t *testing.T) {
	if testing.Short() {
		t.Skip("it measures")
	}

	// Debian's psql is a script that finds the program, and takes several times as long.
	psql := "psql"
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/psql"); len(found) > 0 {
		psql = found[len(found)-1]
	} else {
		needs(t, psql)
	}

	b := newBed(t)
	command := buildCommand(t)
	ratio := math.Inf(1)

	for attempt := 0; attempt < 6 && ratio > coldStart; attempt++ {
		times := b.timed(
			[]string{command, "run", "-n", "x", "true"},
			[]string{psql, "-X", "-d", b.url, "-c", "select 1"})
		ratio = float64(times[0]) / float64(times[1])

		t.Logf("pglocker run -n x true takes %s, %s -c 'select 1' %s: %.2f times as long", times[0], psql, times[1], ratio)
	}

	if ratio > coldStart {
		t.Errorf("that is more than %.1f times", coldStart)
	}
}

// timed runs commands by turns, and returns the lower quartile of the times of each.
func (b *bed) timed(commands ...[]string) []time.Duration {
	b.t.Helper()

	const rounds = 32

	times := make([][]time.Duration, len(commands))

	for range rounds {
		for i, args := range commands {
			cmd := exec.CommandContext(b.t.Context(), args[0], args[1:]...)
			cmd.Env = append(cleanEnvironment(), b.env...)
			began := time.Now()

			if out, err := cmd.CombinedOutput(); err != nil {
				b.t.Fatalf("%q: %v\n%s", args, err, out)
			}

			times[i] = append(times[i], time.Since(began))
		}
	}

	quartiles := make([]time.Duration, len(commands))

	for i, of := range times {
		slices.Sort(of)
		quartiles[i] = of[rounds/4]
	}

	return quartiles
}
