// Package faulttest has the tests that break what pglocker depends on: servers, poolers,
// networks, drivers, pools, clocks, privileges and tables.
package faulttest

import (
	"os"
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
)

// workerVariable names the worker that this program is to be, if it is not to run tests.
const workerVariable = "PGLOCKER_TEST_WORKER"

// worker is set where tests can start processes.
var worker func(name string)

func TestMain(m *testing.M) {
	if name := os.Getenv(workerVariable); name != "" {
		worker(name)
		os.Exit(0)
	}

	contract.Main(m, 28)
}
