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

// TestRunColdStart compares the command to psql. The two take turns, so that a busy machine slows both down.
func TestRunColdStart(t *testing.T) {
	needs(t, "psql")

	if testing.Short() {
		t.Skip("it measures")
	}

	b := newBed(t)
	path := buildCommand(t)

	run := func(name string, args ...string) time.Duration {
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(cleanEnvironment(), b.env...)
		began := time.Now()

		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}

		return time.Since(began)
	}

	var ours, psqls []time.Duration

	for range 25 {
		ours = append(ours, run(path, "run", "-n", "x", "true"))
		psqls = append(psqls, run("psql", "-X", "-d", b.url, "-c", "select 1"))
	}

	slices.Sort(ours)
	slices.Sort(psqls)

	us, psql := ours[len(ours)/2], psqls[len(psqls)/2]
	ratio := float64(us) / float64(psql)

	t.Logf("pglocker run -n x true: %s, psql -c 'select 1': %s, the ratio is %.2f", us, psql, ratio)

	if ratio > coldStart {
		t.Errorf("it takes %.2f times as long as psql, more than %.1f", ratio, coldStart)
	}
}
