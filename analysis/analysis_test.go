package analysis_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/go/analysis/analysistest"

	"github.com/ismurov/pglocker/analysis"
)

func TestContext(t *testing.T) {
	analysistest.Run(t, analysistest.TestData(), analysis.Context, "./context")
}

func TestUnlock(t *testing.T) {
	analysistest.Run(t, analysistest.TestData(), analysis.Unlock, "./unlock")
}

// TestOfThisRepository: no false alarm on what uses the library here.
func TestOfThisRepository(t *testing.T) {
	command := build(t)

	for _, module := range []string{
		".", "contrib/gocron", "contrib/otel", "contrib/certmagic", "contrib/clientgo", "ui", "examples/integrations", "cmd/pglocker", "verify", "bench",
	} {
		if out, err := vet(t, command, filepath.Join("..", module)); err != nil {
			t.Errorf("in %s: %v\n%s", module, err, out)
		}
	}
}

// TestTheCommand: by go vet, each mistake in testdata is reported, and nothing else is.
func TestTheCommand(t *testing.T) {
	out, err := vet(t, build(t), "testdata")
	if exit := new(exec.ExitError); !errors.As(err, &exit) {
		t.Errorf("go vet: %v", err)
	}

	want := wanted(t)
	reports := regexp.MustCompile(`(?m)^(\w+/\w+\.go:\d+):\d+: \w+.* (is from outside|made from one|ignores|isn't unlocked).*$`)

	for _, report := range reports.FindAllStringSubmatch(out, -1) {
		if !want[report[1]] {
			t.Errorf("go vet says %q", report[0])
		}

		delete(want, report[1])
	}

	if len(want) > 0 {
		t.Errorf("go vet reports nothing at %v. It says:\n%s", slices.Sorted(maps.Keys(want)), out)
	}
}

// wanted is where testdata has its mistakes, as file:line.
func wanted(t *testing.T) map[string]bool {
	t.Helper()

	files, err := filepath.Glob("testdata/*/*.go")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}

	want := map[string]bool{}

	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}

		for i, line := range strings.Split(string(text), "\n") {
			if strings.Contains(line, "// want `") {
				want[fmt.Sprintf("%s:%d", strings.TrimPrefix(filepath.ToSlash(file), "testdata/"), i+1)] = true
			}
		}
	}

	return want
}

// build builds the command.
func build(t *testing.T) string {
	t.Helper()

	command := filepath.Join(t.TempDir(), "pglockervet")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", command, "./cmd/pglockervet").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}

	return command
}

// vet runs the command on all packages of a module, and returns what it says.
func vet(t *testing.T, command, dir string) (string, error) {
	t.Helper()

	cmd := exec.CommandContext(t.Context(), "go", "vet", "-vettool="+command, "./...")
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()

	return string(out), err
}
