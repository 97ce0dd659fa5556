package contract

import (
	"os"
	"testing"
)

// Missing skips a test for want of something on the machine. Where CI is "true", it fails the test instead: there all
// that the tests need is installed.
func Missing(tb testing.TB, why ...any) {
	tb.Helper()

	if os.Getenv("CI") == "true" {
		tb.Fatal(why...)
	}

	tb.Skip(why...)
}
