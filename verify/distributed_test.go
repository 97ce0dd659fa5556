package main

import (
	"strings"
	"testing"

	"github.com/ismurov/pglocker/verify/internal/suite"
)

// TestFlags: each job's flag leads to it again, and to no other.
func TestFlags(t *testing.T) {
	t.Parallel()

	for want, jobs := range map[string][]suite.Job{"": jobsOf(7), "-ha": haJobs(7), "-distributed": distributedJobs(7)} {
		for _, job := range jobs {
			if got := strings.TrimSpace(haFlag(job)); got != want {
				t.Errorf("%s: %q, want %q", job.Name(), got, want)
			}
		}
	}
}
