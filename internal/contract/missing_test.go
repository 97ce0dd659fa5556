package contract

import (
	"runtime"
	"testing"
)

// told is a test that notes how it ends.
type told struct {
	testing.TB
	failed, skipped bool
}

func (t *told) Helper() {}

func (t *told) Fatal(...any) {
	t.failed = true

	runtime.Goexit()
}

func (t *told) Skip(...any) {
	t.skipped = true

	runtime.Goexit()
}

// TestMissing: where CI is set, no test is skipped for want of a program.
func TestMissing(t *testing.T) {
	for ci, fails := range map[string]bool{"true": true, "": false} {
		t.Setenv("CI", ci)

		got := &told{TB: t}
		done := make(chan struct{})

		go func() {
			defer close(done)

			Missing(got, "pgbouncer is not installed")
		}()

		<-done

		if got.failed != fails || got.skipped == fails {
			t.Errorf("with CI=%q: failed %t, skipped %t", ci, got.failed, got.skipped)
		}
	}
}
