//go:build !unix

package pglocker_test

import (
	"testing"

	"github.com/ismurov/pglocker/pgtesting"
)

// throughPgBouncer skips the test: it is started by a shell.
func throughPgBouncer(tb testing.TB, _ string) string {
	tb.Helper()
	tb.Skip("a pooler is started on a Unix only")

	return ""
}

// stopWalWriter skips the test: a process is stopped by a signal.
func stopWalWriter(t *testing.T, _ *pgtesting.Server) {
	t.Helper()
	t.Skip("a process is stopped on a Unix only")
}
