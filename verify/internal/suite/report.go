package suite

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// Print writes what a run has found, and how to repeat it: with which flags.
func (r *Result) Print(w io.Writer, flags string) {
	switch {
	case r.Skipped != nil:
		fmt.Fprintf(w, "%s: %v\n", r.Name(), r.Skipped)
	case r.Err != nil:
		fmt.Fprintf(w, "%s: %v\n", r.Name(), r.Err)
	default:
		fmt.Fprintf(w, "%s: %d operations, %d violations in %.1f s\n", r.Name(), r.Operations, len(r.Violations), r.Took.Seconds())
	}

	if r.Job.Fault.With != "" {
		fmt.Fprintf(w, "    made of %s\n", r.Job.Fault.With)
	}

	if len(r.Stops) > 0 {
		fmt.Fprintf(w, "    clients stopped themselves at %s\n", counts(r.Stops))
	}

	if r.Job.Control {
		fmt.Fprintf(w, "    without fencing %d writes were lost or stale, as was to be shown\n", r.Losses)
	}

	if r.Failovers > 0 {
		fmt.Fprintf(w, "    another server took over %d times\n", r.Failovers)
	}

	if r.Job.Fault.Loses && r.Err == nil && r.Skipped == nil {
		fmt.Fprintf(w, "    %d acknowledged grants were lost; two believed at once %d times, for %s at most; %d tokens of an old primary were smaller\n",
			r.Lost.Grants, r.Lost.Count, r.Lost.Longest.Round(time.Millisecond), r.Lost.Smaller)
	}

	if e := r.Excused; e.Cut > 0 || e.Overtaken.Count > 0 {
		fmt.Fprintf(w, "    %s\n", e)
	}

	if r.Weak != "" {
		fmt.Fprintf(w, "    this proves nothing: %s\n", r.Weak)
	}

	const few = 5

	for _, v := range r.Violations[:min(few, len(r.Violations))] {
		fmt.Fprintln(w, v)
	}

	if r.Failed() {
		fmt.Fprintf(w, "    to repeat: go run . %s\n", flags)
	}
}

func counts(of map[string]int) string {
	var parts []string

	for _, name := range slices.Sorted(maps.Keys(of)) {
		parts = append(parts, fmt.Sprintf("%s: %d", name, of[name]))
	}

	return strings.Join(parts, ", ")
}

// Report writes the table of all results.
func Report(w io.Writer, results []*Result) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)

	fmt.Fprint(table, "fault\tseconds\tinjected\toperations\tgrants\tunknown\t")

	for _, name := range oracle.Names() {
		fmt.Fprintf(table, "%s\t", name)
	}

	fmt.Fprintln(table)

	var total Result

	for _, r := range results {
		line(table, r)

		total.Took += r.Took
		total.Injected += r.Injected
		total.Operations += r.Operations
		total.Grants += r.Grants
		total.Unknowns += r.Unknowns
		total.Violations = append(total.Violations, r.Violations...)
	}

	total.Job.Fault.Name = "all"
	line(table, &total)

	return table.Flush()
}

// ReportSkipped says how many runs were not made, if any, and returns their number.
func ReportSkipped(w io.Writer, results []*Result) int {
	var names []string

	for _, r := range results {
		if r.Skipped != nil {
			names = append(names, r.Name())
		}
	}

	if len(names) > 0 {
		fmt.Fprintf(w, "%d of %d faults were NOT run, for want of what they need: %s\n",
			len(names), len(results), strings.Join(names, ", "))
	}

	return len(names)
}

func line(table io.Writer, r *Result) {
	fmt.Fprintf(table, "%s\t%.1f\t%d\t%d\t%d\t%d\t", r.Name(), r.Took.Seconds(), r.Injected, r.Operations, r.Grants, r.Unknowns)

	for _, name := range oracle.Names() {
		count := 0

		for _, v := range r.Violations {
			if v.Oracle == name {
				count++
			}
		}

		switch {
		case r.Skipped != nil:
			fmt.Fprint(table, "skipped\t")
		case r.Err != nil:
			fmt.Fprint(table, "error\t")
		default:
			fmt.Fprintf(table, "%d\t", count)
		}
	}

	fmt.Fprintln(table)
}
