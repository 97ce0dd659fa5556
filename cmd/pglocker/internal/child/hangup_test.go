//go:build linux

package child

import (
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// TestHangUp: a command that is stopped gets HUP and CONT, and one that was continued gets nothing.
func TestHangUp(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		continued bool
		want      syscall.Signal
	}{{false, syscall.SIGHUP}, {true, syscall.SIGTERM}} {
		cmd := exec.Command("sleep", "1000")
		cmd.SysProcAttr = attributes()

		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}

		late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })

		becomes := func(sig syscall.Signal, stopped bool) {
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}

			for deadline := time.Now().Add(time.Minute); isStopped(cmd.Process.Pid) != stopped; time.Sleep(time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%s: the process is stopped: %v", sig, !stopped)
				}
			}
		}

		becomes(syscall.SIGSTOP, true)

		if c.continued {
			becomes(syscall.SIGCONT, false)
		}

		(&running{pid: cmd.Process.Pid}).hangUp()

		if c.continued {
			_ = cmd.Process.Signal(syscall.SIGTERM) // after HUP, if that has come
		}

		_ = cmd.Wait() // the state says the same

		late.Stop()

		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != c.want { //nolint:forcetypeassert // on Linux it is one
			t.Errorf("continued %v: it ends by %s, want %s", c.continued, status.Signal(), c.want)
		}
	}
}
