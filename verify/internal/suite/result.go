package suite

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// Result is what came of a job.
type Result struct {
	Job  Job
	Took time.Duration

	// Injected is how often something was broken.
	Injected int64
	// Stops counts the stops of clients that stopped themselves, by place.
	Stops map[string]int

	Operations, Grants, Unknowns int
	// Losses are what the control lost without fencing.
	Losses int
	// Failovers are how often another server took over.
	Failovers int
	// Lost is the cost of promotions that lost commits.
	Lost oracle.Losses
	// Excused is what O2 has left out.
	Excused    oracle.Excused
	Violations []oracle.Violation
	// Weak says why the run has proved nothing, whatever the oracles say.
	Weak string
	// Paused: it has proved nothing because of the machine's own pauses.
	Paused bool
	// Err is why the run could not be made or judged, Skipped why it wasn't.
	Err, Skipped error

	failures []oracle.Failure
}

// mostCut is how much of all belief pauses may cut where no client is to be stopped: O2 must have looked at most of it.
// On a machine with two cores that runs everything, it was 10 to 20 % for most faults on one day, and 20 to 38 % on
// another, with the same code.
const mostCut = 0.5

// Name is the job's.
func (r *Result) Name() string { return r.Job.Name() }

// Failed reports whether anything was wrong.
func (r *Result) Failed() bool { return r.Err != nil || r.Weak != "" || len(r.Violations) > 0 }

// Again reports whether the job should be run again: the machine paused too much, and nothing else was wrong.
func (r *Result) Again() bool { return r.Paused && r.Err == nil && len(r.Violations) == 0 }

func (r *Result) judge(run *oracle.Run) {
	for _, op := range run.History.Operations {
		r.Operations++

		switch {
		case op.Outcome == history.Unknown:
			r.Unknowns++
		case op.Outcome == history.OK && op.Kind.Grants():
			r.Grants++
		}
	}

	for _, e := range run.History.Notes {
		switch e.Kind {
		case history.Failover:
			r.Failovers++
		case traffic.Exhausted:
			r.Injected++
		}
	}

	settled, violations := oracle.Settle(run)
	linear, failures := oracle.CheckLinearizability(run, settled)
	families, familyFailures := oracle.CheckFamilies(run, settled)
	fencing := oracle.CheckFencing(run)

	if r.Job.Control {
		r.Losses = len(fencing)
		fencing = nil

		if r.Losses == 0 {
			r.Weak = "without fencing nothing was lost"
		}
	}

	r.Injected += int64(r.Failovers)

	if r.Job.Fault.Setup != nil && !r.Job.Fault.Distributed && r.Failovers == 0 {
		r.Weak = "no server took over from another"
	}

	if r.Job.Fault.Loses {
		r.Lost = oracle.Measure(run, settled)

		if r.Lost.Grants == 0 {
			r.Weak = "no commit was lost"
		}
	}

	r.Excused = oracle.MeasureExcused(run)

	if !r.Job.Fault.Stops && r.Excused.Share() > mostCut {
		r.Paused = true
		r.Weak = fmt.Sprintf("pauses cut %.0f%% of all belief, though nobody was to be stopped", 100*r.Excused.Share())
	}

	if r.Weak == "" {
		r.Weak = r.emptiness(run)
	}

	r.failures = append(failures, familyFailures...)
	r.Violations = append(r.Violations, linear...)
	r.Violations = append(r.Violations, families...)
	r.Violations = append(r.Violations, oracle.CheckBeliefs(run)...)
	r.Violations = append(r.Violations, oracle.CheckTokens(run)...)
	r.Violations = append(r.Violations, fencing...)
	r.Violations = append(r.Violations, violations...)
	r.Violations = append(r.Violations, oracle.CheckHealing(run)...)
	r.Violations = append(r.Violations, oracle.CheckRecovery(run)...)
	r.Violations = append(r.Violations, oracle.CheckWaking(run)...)
	r.Violations = append(r.Violations, oracle.CheckBearing(run)...)
	r.Violations = append(r.Violations, oracle.CheckRecipes(run, settled)...)
}

// keep copies everything that is known of a failure to a place where it stays.
func (s *Suite) keep(r *Result, run *oracle.Run, folder string) error {
	kept := filepath.Join(s.Failures, fmt.Sprintf("%s-%d", r.Name(), r.Job.Seed))
	if err := errors.Join(os.RemoveAll(kept), os.MkdirAll(kept, 0o755), os.CopyFS(kept, os.DirFS(folder))); err != nil {
		return fmt.Errorf("suite: %w", err)
	}

	var text strings.Builder

	for _, v := range r.Violations {
		fmt.Fprintln(&text, v)
	}

	if r.Weak != "" {
		fmt.Fprintln(&text, r.Weak)
	}

	if r.Err != nil {
		fmt.Fprintln(&text, r.Err)
	}

	errs := []error{os.WriteFile(filepath.Join(kept, "violations.txt"), []byte(text.String()), 0o644)}

	if run != nil {
		transitions, err := json.MarshalIndent(run.Audit, "", " ")
		errs = append(errs, err, os.WriteFile(filepath.Join(kept, "audit.json"), transitions, 0o644))
	}

	for _, f := range r.failures {
		errs = append(errs, f.Picture(filepath.Join(kept, strings.ReplaceAll(f.Lock, ":", "-")+".html")))
	}

	return errors.Join(errs...)
}
