package cluster

import (
	"os/exec"
	"syscall"
	"testing"
)

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
