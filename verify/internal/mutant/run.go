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
	// tryFor is how long the suite runs on a fault, from start to end. tryHAFor is the same where
	// another server has to take over.
	tryFor   = 7 * time.Second
	tryHAFor = 20 * time.Second
	// tries is how many runs a mutant may survive. controlTries is how many runs of the library as
	// it is must have no complaint: most mutants are caught in the first or the second.
	tries        = 5
	controlTries = 2
	// failures is how many runs in a row that can't be made, or prove nothing, are an error.
	failures = 3
)

var (
	// ErrSurvived: a mutant wasn't caught by an oracle that should catch it, or wasn't run.
	ErrSurvived = errors.New("mutant: not every mutant was caught by who should catch it")
	// ErrFalseAlarm: the suite found something wrong with the library as it is.
	ErrFalseAlarm = errors.New("mutant: oracles see violations where nothing was changed")

	errSkipped = errors.New("mutant: this machine lacks what the fault needs")
)

// Run first runs the suite on the library as it is, with the faults of all mutants: an oracle that
// complains then catches nothing. Then it makes each mutant of the library in source. It runs the
// suite on it, with the seed and then with those that follow, until an oracle catches it that
// should. It writes what it does as it goes on, and in the end a table: which oracles caught each
// mutant, which others complained, and after how long.
func Run(ctx context.Context, mutants []Mutant, source string, seed uint64, w io.Writer) error {
	source, err := filepath.Abs(source)
	if err != nil {
		return fmt.Errorf("mutant: %w", err)
	}

	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer func() { _ = table.Flush() }() // what is known so far, if it goes wrong

	fmt.Fprintln(table, "mutant\tfault\tcaught by\tbesides\ttries\tseconds")

	var (
		survived, falseAlarm bool
		failed               []error
	)

	all := slices.Concat(controls(mutants), mutants)
	for i, m := range all {
		fmt.Fprintf(w, "%d of %d: %s\n", i+1, len(all), m.Name)

		f, err := m.hunt(ctx, source, seed, w)
		by, besides := m.divide(f.by)
		who := names(by, "nobody")

		switch {
		case errors.Is(err, errSkipped):
			who = "skipped"
			survived = true
		case err != nil:
			who = "error"
			failed = append(failed, fmt.Errorf("mutant: %s: %w", m.Name, err))
		case m.control():
			falseAlarm = falseAlarm || len(by) > 0
		default:
			survived = survived || len(by) == 0
		}

		fmt.Fprintf(w, "    caught by %s, besides %s, in %d tries and %.1f s\n", who, names(besides, "-"), f.tries, f.took.Seconds())
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\t%.1f\n",
			m.Name, strings.ReplaceAll(m.Fault, ",", ", "), who, names(besides, "-"), f.tries, f.took.Seconds())

		if ctx.Err() != nil {
			break
		}
	}

	if falseAlarm {
		failed = append(failed, ErrFalseAlarm)
	}

	if survived {
		failed = append(failed, ErrSurvived)
	}

	return errors.Join(failed...)
}

// control: nothing is broken.
func (m Mutant) control() bool { return len(m.Edits) == 0 }

// divide separates the oracles that should have complained from the others. All of them should if
// the library as it is has a complaint.
func (m Mutant) divide(found []oracle.Name) (expected, others []oracle.Name) {
	for _, name := range found {
		if m.control() || slices.Contains(m.Expect, name) {
			expected = append(expected, name)
		} else {
			others = append(others, name)
		}
	}

	return expected, others
}

func names(oracles []oracle.Name, none string) string {
	if len(oracles) == 0 {
		return none
	}

	var all []string
	for _, name := range oracles {
		all = append(all, string(name))
	}

	return strings.Join(all, ", ")
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

// found is the result of a hunt: by are all oracles that complained in any of its tries.
type found struct {
	by    []oracle.Name
	tries int
	took  time.Duration
}

// hunt runs the suite on the mutant until an oracle catches it that should. A run that can't be
// made is made again with the next seed.
func (m Mutant) hunt(ctx context.Context, source string, seed uint64, w io.Writer) (f found, err error) {
	folder, err := os.MkdirTemp("", "pglocker-mutant-")
	if err != nil {
		return f, err
	}

	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()

	began := time.Now()

	program, err := m.build(ctx, source, folder)
	if err != nil {
		return f, err
	}

	fmt.Fprintf(w, "    built in %.1f s\n", time.Since(began).Seconds())

	return m.chase(ctx, func(seed uint64) ([]oracle.Name, error) {
		began := time.Now()
		by, err := m.try(ctx, program, seed, &lines{to: w})

		if err != nil {
			fmt.Fprintf(w, "    seed %d, %.1f s: it can't be told: %v\n", seed, time.Since(began).Seconds(), err)
		} else {
			fmt.Fprintf(w, "    seed %d, %.1f s: %s complained\n", seed, time.Since(began).Seconds(), names(by, "nobody"))
		}

		return by, err
	}, seed)
}

// chase is the tries of a hunt.
func (m Mutant) chase(ctx context.Context, try func(seed uint64) ([]oracle.Name, error), seed uint64) (f found, err error) {
	most := tries
	if m.control() {
		most = controlTries
	}

	began := time.Now()
	defer func() { f.took = time.Since(began) }()

	for failed := 0; f.tries < most; seed++ {
		by, err := try(seed)

		switch {
		case err == nil:
		case errors.Is(err, errSkipped), ctx.Err() != nil, failed+1 == failures:
			return f, err
		default:
			failed++

			continue
		}

		failed = 0
		f.tries++
		f.by = slices.Compact(slices.Sorted(slices.Values(append(f.by, by...))))

		if expected, _ := m.divide(by); len(expected) > 0 {
			break
		}
	}

	return f, nil
}

// build builds the suite with the mutated library.
func (m Mutant) build(ctx context.Context, source, folder string) (program string, err error) {
	program = filepath.Join(folder, "mutant")

	return program, m.compile(ctx, source, folder, "verify", "-o", program, ".")
}

// compile runs the compiler in a directory of the source. It reads the mutated files, which are written to the
// folder, in place of the library's own, and finds the rest in its cache.
func (m Mutant) compile(ctx context.Context, source, folder, directory string, args ...string) error {
	files, err := m.apply(source)
	if err != nil {
		return err
	}

	var overlay struct{ Replace map[string]string }

	overlay.Replace = make(map[string]string)

	for name, text := range files {
		mutated := filepath.Join(folder, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(mutated, []byte(text), 0o644); err != nil {
			return err
		}

		overlay.Replace[filepath.Join(source, filepath.FromSlash(name))] = mutated
	}

	list, err := json.Marshal(overlay)
	if err != nil {
		return err
	}

	overlayFile := filepath.Join(folder, "overlay.json")
	if err := os.WriteFile(overlayFile, list, 0o644); err != nil {
		return err
	}

	build := exec.CommandContext(ctx, "go", append([]string{"build", "-overlay", overlayFile}, args...)...)
	build.Dir = filepath.Join(source, directory)

	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}

	return nil
}

// try runs the suite once, and returns which oracles caught the mutant. The suite's line on each
// fault goes to progress as soon as that fault is over.
func (m Mutant) try(ctx context.Context, program string, seed uint64, progress io.Writer) ([]oracle.Name, error) {
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
	// The suite ends its servers itself, if it is given the time.
	suite.Cancel = func() error { return suite.Process.Signal(os.Interrupt) }
	suite.WaitDelay = 30 * time.Second

	var out bytes.Buffer

	suite.Stdout = io.MultiWriter(&out, progress)
	suite.Stderr = suite.Stdout // the same, so that they are one stream

	// Its exit code says that it found something, as it should have.
	err := suite.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return nil, err
	}

	return verdict(out.Bytes(), err == nil)
}

// lines passes on the suite's line on each fault.
type lines struct {
	to   io.Writer
	rest []byte
}

func (l *lines) Write(text []byte) (int, error) {
	l.rest = append(l.rest, text...)

	for {
		line, rest, found := bytes.Cut(l.rest, []byte("\n"))
		if !found {
			return len(text), nil
		}

		l.rest = rest

		if bytes.Contains(line, []byte(" operations, ")) && bytes.Contains(line, []byte(" violations in ")) {
			fmt.Fprintf(l.to, "        %s\n", line)
		}
	}
}

// verdict is which oracles complained. A suite that fails without a complaint has proved nothing.
func verdict(out []byte, content bool) ([]oracle.Name, error) {
	caught, err := columns(out)
	if err == nil && len(caught) == 0 && !content {
		return nil, fmt.Errorf("a run proves nothing: %s", out)
	}

	return caught, err
}

// columns returns the oracles that have a number above zero in the last line of the
// suite's table.
func columns(out []byte) (caught []oracle.Name, err error) {
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
			caught = append(caught, names[i])
		}
	}

	return caught, nil
}
