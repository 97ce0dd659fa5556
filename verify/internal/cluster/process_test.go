package cluster

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestKill: a process that had ended by itself before it was killed is told from one that the
// kill has ended, with what it wrote.
func TestKill(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name, script string
		ended        bool
	}{
		{"runs", "exec sleep 60", false},
		{"had ended", "echo why >&2", true},
		{"had failed", "echo why >&2; exit 2", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			p := &process{cmd: exec.Command("sh", "-c", test.script), done: make(chan struct{})}
			p.cmd.Stderr = &p.errors

			if err := p.cmd.Start(); err != nil {
				t.Fatal(err)
			}

			p.reap()

			if test.ended {
				<-p.done
			}

			err := p.kill()
			if (err != nil) != test.ended || test.ended && !strings.Contains(err.Error(), "why") {
				t.Errorf("%v, ended by itself: %t", err, test.ended)
			}
		})
	}
}

// TestStopped: a process is seen to be halted from the moment that it is until it goes on.
func TestStopped(t *testing.T) {
	t.Parallel()

	p := &process{cmd: exec.Command("sleep", "60"), done: make(chan struct{})}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}

	defer func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
	}()

	await := func(what int) {
		t.Helper()

		var status syscall.WaitStatus
		if _, err := syscall.Wait4(p.cmd.Process.Pid, &status, what, nil); err != nil {
			t.Fatal(err)
		}
	}

	if p.stopped() {
		t.Error("halted from the start")
	}

	p.signal(syscall.SIGSTOP)
	await(syscall.WUNTRACED)

	if !p.stopped() {
		t.Error("not halted, and it was")
	}

	p.signal(syscall.SIGCONT)
	await(syscall.WCONTINUED)

	if p.stopped() {
		t.Error("halted, and it goes on")
	}
}
