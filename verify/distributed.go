package main

import (
	"github.com/ismurov/pglocker/verify/internal/fault"
	"github.com/ismurov/pglocker/verify/internal/suite"
)

// distributedJobs lists the faults of a distributed engine.
func distributedJobs(seed uint64) []suite.Job {
	var jobs []suite.Job
	for _, f := range fault.Distributed(suite.ServerOptions()...) {
		jobs = append(jobs, suite.Job{Fault: f, Seed: suite.SeedOf(seed, f.Name)})
	}

	return jobs
}
