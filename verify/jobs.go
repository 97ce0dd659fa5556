package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"github.com/ismurov/pglocker/verify/internal/fault"
	"github.com/ismurov/pglocker/verify/internal/suite"
)

// jobsOf lists every fault alone, a mixture of those that this machine can run, and the
// control.
func jobsOf(seed uint64) []suite.Job {
	const parts = 4

	faults := fault.All()
	r := rand.New(rand.NewPCG(suite.SeedOf(seed, "mixture"), 0))
	faults = append(faults, fault.Mixture(r, parts, func(f fault.Fault) bool { return f.Missing() == nil }))

	jobs := make([]suite.Job, 0, len(faults)+1)
	for _, f := range faults {
		jobs = append(jobs, suite.Job{Fault: f, Seed: suite.SeedOf(seed, f.Name)})
	}

	return append(jobs, suite.Job{Fault: fault.Control(), Control: true, Seed: suite.SeedOf(seed, "control")})
}

// overhead is how long a job takes besides its fault: to start, heal, end and judge.
const overhead = 3 * time.Second

// leastFault is the shortest time for a fault in which something happens.
const leastFault = 2 * time.Second

// runJobs runs the jobs one after the other, until ctx ends, and prints the table in any case,
// and below it what was found.
func runJobs(ctx context.Context, s *suite.Suite, jobs []suite.Job, seed uint64, duration time.Duration, strict bool) error {
	var results, failed []*suite.Result

	repeat := func(r *suite.Result) string {
		return fmt.Sprintf("%s-seed %d -only %s -duration %s", haFlag(r.Job), seed, r.Name(), r.Took.Round(time.Second))
	}

	for _, job := range jobs {
		job.Duration = max(duration/time.Duration(len(jobs))-overhead, leastFault, job.Fault.Least)
		r := s.Run(ctx, job)

		if r.Again() && ctx.Err() == nil {
			r.Print(os.Stdout, repeat(r))
			fmt.Println("    once more:")

			r = s.Run(ctx, job)
		}

		if ctx.Err() != nil {
			break // this one shows nothing
		}

		results = append(results, r)
		r.Print(os.Stdout, repeat(r))

		if r.Failed() {
			failed = append(failed, r)
		}
	}

	if err := suite.Report(os.Stdout, results); err != nil {
		return err
	}

	skipped := suite.ReportSkipped(os.Stdout, results)

	// Once more at the end, where it is seen, and kept where only the end of a log is.
	for _, r := range failed {
		r.Print(os.Stdout, repeat(r))
	}

	switch {
	case len(failed) > 0:
		return errViolated
	case ctx.Err() != nil:
		return errInterrupted
	case strict && skipped > 0:
		return errNotRun
	}

	return nil
}
