package suite

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/fault"
	"github.com/ismurov/pglocker/verify/internal/oracle"
)

// TestTally: results are added up by fault, also after they have been kept in between, and
// the table shows all of them.
func TestTally(t *testing.T) {
	t.Parallel()

	result := func(name string, injected int64, found ...oracle.Name) *Result {
		r := &Result{Job: Job{Fault: fault.Fault{Name: name}}, Injected: injected, Operations: 100, Grants: 10, Unknowns: 1}
		for _, o := range found {
			r.Violations = append(r.Violations, oracle.Violation{Oracle: o})
		}

		return r
	}

	var tally Tally

	tally.Add(result("b", 3))
	tally.Add(result("a", 2))

	if tally.Failed() {
		t.Error("failed, and nothing was wrong")
	}

	text, err := json.Marshal(tally)
	if err != nil {
		t.Fatal(err)
	}

	var kept Tally
	if err := json.Unmarshal(text, &kept); err != nil {
		t.Fatal(err)
	}

	skipped := result("c", 0)
	skipped.Skipped = errSkipped
	kept.Add(skipped)

	if kept.Failed() {
		t.Error("failed for a job that was skipped")
	}

	broken := result("c", 0)
	broken.Err = errors.New("broken")
	withError := Tally{}
	withError.Add(broken)

	if !withError.Failed() {
		t.Error("not failed, and a run could not be made")
	}

	kept.Add(result("b", 4, oracle.Tokens, oracle.Tokens, oracle.Healing))

	if !kept.Failed() {
		t.Error("not failed, and something was wrong")
	}

	const want = `| fault | runs | injected | operations | grants | unknown | O1 | O2 | O3 | O4 | O5 | O6 | O7 | O8 | errors | skipped |
|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|
| a | 1 | 2 | 100 | 10 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |
| b | 2 | 7 | 200 | 20 | 2 | 0 | 0 | 2 | 0 | 0 | 1 | 0 | 0 | 0 | 0 |
| c | 1 | 0 | 100 | 10 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 0 | 1 |
| all | 4 | 9 | 400 | 40 | 4 | 0 | 0 | 2 | 0 | 0 | 1 | 0 | 0 | 0 | 1 |
`
	if got := kept.Markdown(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}

	var table strings.Builder
	if err := kept.Write(&table); err != nil {
		t.Fatal(err)
	}

	words := func(text string) string { return strings.Join(strings.Fields(strings.ReplaceAll(text, "|", " ")), " ") }
	if got := words(table.String()); got != strings.Replace(words(want), "--- "+strings.TrimSuffix(strings.Repeat("---: ", 15), " ")+" ", "", 1) {
		t.Errorf("the table for a terminal is\n%s", table.String())
	}
}
