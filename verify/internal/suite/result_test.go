package suite

import (
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/fault"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// TestControl: a control that loses nothing proves nothing, and is a violation; its losses
// are none.
func TestControl(t *testing.T) {
	t.Parallel()

	lossy := &oracle.Run{History: &history.History{}, Writes: []oracle.Write{
		{Lock: "a", Token: 4, Value: 1}, {Lock: "a", Token: 2, Value: 1},
	}}
	none := &oracle.Run{History: &history.History{}}

	for _, test := range []struct {
		name       string
		control    bool
		run        *oracle.Run
		losses     int
		violations int
		weak       bool
	}{
		{"control that loses", true, lossy, 1, 0, false},
		{"control that doesn't", true, none, 0, 0, true},
		{"fenced, and loses", false, lossy, 0, 1, false},
		{"fenced, and doesn't", false, none, 0, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			r := &Result{Job: Job{Fault: fault.Fault{Name: test.name}, Control: test.control}}
			r.judge(test.run)

			if r.Losses != test.losses || len(r.Violations) != test.violations || (r.Weak != "") != test.weak ||
				r.Failed() != (test.violations > 0 || test.weak) {
				t.Errorf("%d losses, violations %v, weak %q, failed %t", r.Losses, r.Violations, r.Weak, r.Failed())
			}

			for _, v := range r.Violations {
				if v.Oracle != oracle.Fencing {
					t.Errorf("%s, want one of %s", v, oracle.Fencing)
				}
			}

			var table strings.Builder
			if err := Report(&table, []*Result{r}); err != nil {
				t.Fatal(err)
			}

			total := strings.Fields(table.String()[strings.LastIndex(table.String(), "all"):])
			if got := total[len(total)-3]; (got == "1") != (test.violations > 0) { // O4 of six
				t.Errorf("O4 is %s in\n%s", got, table.String())
			}
		})
	}
}
