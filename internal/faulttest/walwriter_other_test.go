//go:build !unix

package faulttest

import (
	"testing"

	"github.com/ismurov/pglocker/pgtesting"
)

// stopWalWriter skips the test: a process is stopped by a signal.
func stopWalWriter(t *testing.T, _ *pgtesting.Server) {
	t.Helper()
	t.Skip("a process is stopped on a Unix only")
}
