package mutant

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ismurov/pglocker/verify/internal/oracle"
)

const (
	// tryFor is how long the suite runs on a fault, to start and end included, and tryHAFor
	// the same where another server has to take over.
	tryFor   = 7 * time.Second
	tryHAFor = 20 * time.Second
	// tries is how many seeds a mutant may survive.
	tries = 5
)

var (
	// ErrSurvived: the suite found nothing wrong with some mutant.
	ErrSurvived = errors.New("mutant: not every mutant was caught")
	// ErrFalseAlarm: the suite found something wrong with the library as it is.
	ErrFalseAlarm = errors.New("mutant: oracles see violations where nothing was changed")

	errSkipped = errors.New("mutant: this machine lacks what the fault needs")
)

// Run makes each mutant of the library in source, runs the suite on it until it is caught,
// with the seed and then with those that follow it, and writes a table of which oracles
// caught it, and after how long. First of all it runs the suite on the library as it is,
// with the same faults and the same seed: who cries then, catches nothing.
func Run(ctx context.Context, mutants []Mutant, source string, seed uint64, w io.Writer) error {
	source, err := filepath.Abs(source)
	if err != nil {
		return fmt.Errorf("mutant: %w", err)
	}

	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer func() { _ = table.Flush() }() // what is known so far, if it goes wrong

	fmt.Fprintln(table, "mutant\tfault\tcaught by\ttries\tseconds")

	var survived, falseAlarm bool

	for _, m := range slices.Concat(controls(mutants), mutants) {
		control := len(m.Edits) == 0

		f, err := m.hunt(ctx, source, seed)

		by := strings.Join(f.by, ", ")

		switch {
		case errors.Is(err, errSkipped):
			by = "skipped"
		case err != nil:
			return fmt.Errorf("mutant: %s: %w", m.Name, err)
		case by == "":
			by = "nobody"
			survived = survived || !control
		default:
			falseAlarm = falseAlarm || control
		}

		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%.1f\n", m.Name, strings.ReplaceAll(m.Fault, ",", ", "), by, f.tries, f.took.Seconds())
	}

	switch {
	case falseAlarm:
		return ErrFalseAlarm
	case survived:
		return ErrSurvived
	}

	return nil
}

// controls are runs of the library as it is on all faults of the mutants, one for each set
// of flags.
func controls(mutants []Mutant) []Mutant {
	var all []Mutant

	for _, m := range mutants {
		i := slices.IndexFunc(all, func(c Mutant) bool { return slices.Equal(c.Flags, m.Flags) })

		switch {
		case i < 0:
			all = append(all, Mutant{Name: "none: the library as it is", Fault: m.Fault, Flags: m.Flags})
		case !slices.Contains(strings.Split(all[i].Fault, ","), m.Fault):
			all[i].Fault += "," + m.Fault
		}
	}

	return all
}

// found is what came of a hunt.
type found struct {
	by    []string
	tries int
	took  time.Duration
}

// hunt runs the suite on the mutant until an oracle catches it. What isn't broken is looked
// at once.
func (m Mutant) hunt(ctx context.Context, source string, seed uint64) (f found, err error) {
	folder, err := os.MkdirTemp("", "pglocker-mutant-")
	if err != nil {
		return f, err
	}

	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()

	program, err := m.build(ctx, source, folder)
	if err != nil {
		return f, err
	}

	most := tries
	if len(m.Edits) == 0 {
		most = 1
	}

	began := time.Now()

	for len(f.by) == 0 && f.tries < most && err == nil {
		f.by, err = m.try(ctx, program, seed+uint64(f.tries))
		f.tries++
		f.took = time.Since(began)
	}

	return f, err
}

// build builds the suite with the mutated library. The compiler reads the mutated files in
// place of the library's own, and so finds in its cache what is the same.
func (m Mutant) build(ctx context.Context, source, folder string) (program string, err error) {
	files, err := m.apply(source)
	if err != nil {
		return "", err
	}

	var overlay struct{ Replace map[string]string }

	overlay.Replace = make(map[string]string)

	for name, text := range files {
		mutated := filepath.Join(folder, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(mutated, []byte(text), 0o644); err != nil {
			return "", err
		}

		overlay.Replace[filepath.Join(source, filepath.FromSlash(name))] = mutated
	}

	list, err := json.Marshal(overlay)
	if err != nil {
		return "", err
	}

	overlayFile := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(overlayFile, list, 0o644); err != nil {
		return "", err
	}

	program = filepath.Join(folder, "mutant")

	build := exec.CommandContext(ctx, "go", "build", "-overlay", overlayFile, "-o", program, ".")
	build.Dir = filepath.Join(source, "verify")

	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}

	return program, nil
}

// try runs the suite once, and returns which oracles caught the mutant.
func (m Mutant) try(ctx context.Context, program string, seed uint64) ([]string, error) {
	each := tryFor
	if len(m.Flags) > 0 {
		each = tryHAFor
	}

	faults := strings.Count(m.Fault, ",") + 1
	args := slices.Concat(m.Flags, []string{
		"-only", m.Fault, "-duration", (time.Duration(faults) * each).String(), "-seed", fmt.Sprint(seed),
	})

	suite := exec.CommandContext(ctx, program, args...)
	suite.Dir = filepath.Dir(program) // where it leaves the histories of what it found
	// It ends its servers itself, if it is given the time.
	suite.Cancel = func() error { return suite.Process.Signal(os.Interrupt) }
	suite.WaitDelay = 30 * time.Second

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
	var (
		names = oracle.Names()
		total []string
	)

	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		if len(fields) <= len(names) {
			continue
		}

		switch last := fields[len(fields)-1]; {
		case fields[0] == "all":
			total = fields
		case last == "skipped":
			return nil, errSkipped
		case last == "error":
			return nil, fmt.Errorf("a run could not be made: %s", out)
		}
	}

	if total == nil {
		return nil, fmt.Errorf("the suite didn't get to its end: %s", out)
	}

	for i, count := range total[len(total)-len(names):] {
		if count != "0" {
			caught = append(caught, string(names[i]))
		}
	}

	return caught, nil
}
