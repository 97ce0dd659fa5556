// Package faulttest has the tests that break what pglocker depends on: servers, poolers,
// networks, drivers, pools, clocks, privileges and tables.
package faulttest

import (
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
)

func TestMain(m *testing.M) { contract.Main(m, 28) }
