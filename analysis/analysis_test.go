package analysis_test

import (
	"os"
	"os/exec"
	"path/filepath"
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

// TestOfThisRepository: no false alarm on the examples, nor on what else uses the library here.
func TestOfThisRepository(t *testing.T) {
	command := filepath.Join(t.TempDir(), "pglockervet")
	run(t, ".", "build", "-o", command, "./cmd/pglockervet")

	run(t, "..", "vet", "-vettool="+command, ".", "./examples/...", "./internal/contract", "./internal/faulttest")

	for _, module := range []string{"../examples/integrations", "../contrib/gocron", "../contrib/certmagic", "../contrib/clientgo"} {
		run(t, module, "vet", "-vettool="+command, "./...")
	}

	// It does look.
	cmd := exec.CommandContext(t.Context(), "go", "vet", "-vettool="+command, "./...")
	cmd.Dir = "testdata"

	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("go vet finds nothing in testdata:\n%s", out)
	}
}

func run(t *testing.T, dir string, args ...string) {
	t.Helper()

	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stdout, os.Stderr

	if err := cmd.Run(); err != nil {
		t.Errorf("in %s: go %v: %v", dir, args, err)
	}
}
