package main

import (
	"math/rand/v2"

	"github.com/ismurov/pglocker/verify/internal/fault"
	"github.com/ismurov/pglocker/verify/internal/suite"
)

// haJobs lists the faults in which one server takes over from another, and a mixture of one of them
// with other faults.
func haJobs(seed uint64) []suite.Job {
	var jobs []suite.Job
	for _, f := range fault.HA(suite.ServerOptions()...) {
		jobs = append(jobs, suite.Job{Fault: f, Seed: suite.SeedOf(seed, f.Name)})
	}

	const parts = 3

	r := rand.New(rand.NewPCG(suite.SeedOf(seed, "failover-mixture"), 0))
	mixture := fault.FailoverMixture(r, parts, suite.ServerOptions()...)

	return append(jobs, suite.Job{Fault: mixture, Seed: r.Uint64()})
}

// haFlag is the flag that runs the job again. It also sets the job's name apart from others.
func haFlag(job suite.Job) string {
	switch {
	case job.Fault.Distributed:
		return "-distributed "
	case job.Fault.Setup != nil:
		return "-ha "
	}

	return ""
}
