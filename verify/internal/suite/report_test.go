package suite

import (
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/fault"
)

// TestReportSkipped: what was not run is told by name, and nothing if all was.
func TestReportSkipped(t *testing.T) {
	t.Parallel()

	result := func(name string, err error) *Result {
		return &Result{Job: Job{Fault: fault.Fault{Name: name}}, Skipped: err}
	}

	var text strings.Builder

	if n := ReportSkipped(&text, []*Result{result("a", nil)}); n != 0 || text.Len() > 0 {
		t.Errorf("%d skipped, told %q, want none", n, text.String())
	}

	n := ReportSkipped(&text, []*Result{result("a", nil), result("b", errSkipped), result("c", errSkipped)})
	if n != 2 || !strings.Contains(text.String(), "2 of 3 faults were NOT run") || !strings.Contains(text.String(), "b, c\n") {
		t.Errorf("%d skipped, told %q, want two of three", n, text.String())
	}
}
