package suite

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// Tally is the sum of many jobs' results, by fault. It can be kept as JSON.
type Tally struct {
	Rows []*Row
}

// Row is the sum of all jobs' results of one fault.
type Row struct {
	Name string
	Took time.Duration
	// Errors are runs that could not be made or judged, or that prove nothing; Skipped are
	// those that weren't made.
	Runs, Errors, Skipped        int
	Injected                     int64
	Operations, Grants, Unknowns int
	Violations                   map[oracle.Name]int
	// Excused is what O2 has left out.
	Excused oracle.Excused
}

// Add adds one job's result.
func (t *Tally) Add(r *Result) {
	at, found := slices.BinarySearchFunc(t.Rows, r.Name(), func(row *Row, name string) int {
		return strings.Compare(row.Name, name)
	})
	if !found {
		t.Rows = slices.Insert(t.Rows, at, &Row{Name: r.Name()})
	}

	one := &Row{
		Took: r.Took, Runs: 1, Injected: r.Injected,
		Operations: r.Operations, Grants: r.Grants, Unknowns: r.Unknowns,
		Violations: make(map[oracle.Name]int), Excused: r.Excused,
	}

	if r.Err != nil || r.Weak != "" {
		one.Errors = 1
	}

	if r.Skipped != nil {
		one.Skipped = 1
	}

	for _, v := range r.Violations {
		one.Violations[v.Oracle]++
	}

	t.Rows[at].add(one)
}

func (row *Row) add(other *Row) {
	row.Took += other.Took
	row.Runs += other.Runs
	row.Errors += other.Errors
	row.Skipped += other.Skipped
	row.Injected += other.Injected
	row.Operations += other.Operations
	row.Grants += other.Grants
	row.Unknowns += other.Unknowns
	row.Excused.Add(other.Excused)

	if row.Violations == nil {
		row.Violations = make(map[oracle.Name]int)
	}

	for name, n := range other.Violations {
		row.Violations[name] += n
	}
}

// Found is how many violations there were.
func (row *Row) Found() int {
	found := 0
	for _, n := range row.Violations {
		found += n
	}

	return found
}

// Total is all rows in one.
func (t *Tally) Total() *Row {
	total := &Row{Name: "all"}
	for _, row := range t.Rows {
		total.add(row)
	}

	return total
}

// Failed reports whether anything was wrong.
func (t *Tally) Failed() bool {
	total := t.Total()

	return total.Errors > 0 || total.Found() > 0
}

// lines are the table's, its head and its total included.
func (t *Tally) lines() [][]string {
	head := []string{"fault", "runs", "injected", "operations", "grants", "unknown"}
	for _, name := range oracle.Names() {
		head = append(head, string(name))
	}

	lines := [][]string{append(head, "errors", "skipped")}

	for _, row := range append(slices.Clone(t.Rows), t.Total()) {
		line := []string{row.Name}
		for _, n := range []int{row.Runs, int(row.Injected), row.Operations, row.Grants, row.Unknowns} {
			line = append(line, fmt.Sprint(n))
		}

		for _, name := range oracle.Names() {
			line = append(line, fmt.Sprint(row.Violations[name]))
		}

		lines = append(lines, append(line, fmt.Sprint(row.Errors), fmt.Sprint(row.Skipped)))
	}

	return lines
}

// Write writes the table for a terminal.
func (t *Tally) Write(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)

	for _, line := range t.lines() {
		fmt.Fprintln(table, strings.Join(line, "\t")+"\t")
	}

	return table.Flush()
}

// Markdown is the table for a document.
func (t *Tally) Markdown() string {
	var text strings.Builder

	for i, line := range t.lines() {
		fmt.Fprintf(&text, "| %s |\n", strings.Join(line, " | "))

		if i == 0 {
			fmt.Fprintf(&text, "|---|%s\n", strings.Repeat("---:|", len(line)-1))
		}
	}

	return text.String()
}
