//go:build !unix

package contract

import "testing"

// ThroughPgBouncer skips the test: the pooler is started by a shell.
func ThroughPgBouncer(tb testing.TB, _ string) string {
	tb.Helper()
	tb.Skip("a pooler is started on a Unix only")

	return ""
}

// ThroughPgBouncerIn skips the test.
func ThroughPgBouncerIn(tb testing.TB, _, databaseURL string) string {
	tb.Helper()

	return ThroughPgBouncer(tb, databaseURL)
}
