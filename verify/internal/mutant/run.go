package mutant

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// longEnough is how long the suite runs on a mutant at most, to start and end included.
const longEnough = 8 * time.Second

// ErrSurvived: the suite found nothing wrong with some mutant.
var ErrSurvived = errors.New("mutant: not every mutant was caught")

// Run makes each mutant of the library in source, runs the suite on it with the seed, and
// writes a table of which oracles caught it. duration is for all of them.
func Run(ctx context.Context, mutants []Mutant, source string, seed uint64, duration time.Duration, w io.Writer) error {
	each := min(duration/time.Duration(max(len(mutants), 1)), longEnough)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "mutant\tfault\tseconds\tcaught by")

	survived := false

	for _, m := range mutants {
		began := time.Now()

		caught, err := m.run(ctx, source, seed, each)
		if err != nil {
			return fmt.Errorf("mutant: %s: %w", m.Name, err)
		}

		by := strings.Join(caught, ", ")
		if by == "" {
			by, survived = "nobody", true
		}

		fmt.Fprintf(table, "%s\t%s\t%.1f\t%s\n", m.Name, m.Fault, time.Since(began).Seconds(), by)
	}

	if err := table.Flush(); err != nil {
		return err
	}

	if survived {
		return ErrSurvived
	}

	return nil
}

// run returns which oracles caught the mutant.
func (m Mutant) run(ctx context.Context, source string, seed uint64, duration time.Duration) (caught []string, err error) {
	folder, err := os.MkdirTemp("", "pglocker-mutant-")
	if err != nil {
		return nil, err
	}

	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()

	if err := m.copySource(folder, source); err != nil {
		return nil, err
	}

	module := filepath.Join(folder, "verify")
	program := filepath.Join(folder, "mutant")

	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir = module

	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}

	suite := exec.CommandContext(ctx, program, "-only", m.Fault, "-duration", duration.String(), "-seed", fmt.Sprint(seed))
	suite.Dir = module

	// Its exit code says that it found something, as it should.
	out, err := suite.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return nil, err
	}

	return columns(out)
}

// columns returns the oracles that have a number above zero in the last line of the
// suite's table.
func columns(out []byte) (caught []string, err error) {
	var total []string

	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 0 && fields[0] == "all" {
			total = fields
		}
	}

	names := oracle.Names()
	if len(total) < len(names) {
		return nil, fmt.Errorf("the suite didn't get to its end: %s", out)
	}

	for i, count := range total[len(total)-len(names):] {
		if count != "0" {
			caught = append(caught, string(names[i]))
		}
	}

	return caught, nil
}

// copySource copies what the build needs, with the mutation.
func (m Mutant) copySource(folder, source string) error {
	mutated := false

	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		name, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}

		target := filepath.Join(folder, name)

		if d.IsDir() {
			if d.Name() == ".git" {
				return fs.SkipDir
			}

			return os.MkdirAll(target, 0o755)
		}

		switch filepath.Ext(name) {
		case ".go", ".mod", ".sum", ".sql":
		default:
			return nil
		}

		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}

		if name == filepath.FromSlash(m.File) {
			mutated = bytes.Contains(text, []byte(m.Old))
			text = bytes.ReplaceAll(text, []byte(m.Old), []byte(m.New))
		}

		return os.WriteFile(target, text, 0o644)
	})
	if err == nil && !mutated {
		err = fmt.Errorf("%s has no %q any more", m.File, m.Old)
	}

	return err
}
