package cluster

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// process is this program, started again in another role. It ends when its input does, and so with
// the coordinator, however that ends.
type process struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *bufio.Reader
	errors strings.Builder
	done   chan struct{}
	// err is how it ended, once done is closed.
	err error
}

func startProcess(args ...string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}

	p := &process{cmd: exec.Command(self, args...), done: make(chan struct{})}
	p.cmd.Stderr = &p.errors
	// A terminal's interrupt is for the coordinator, which ends the others. A process that is
	// stopped wouldn't see the end of its input.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

	if p.input, err = p.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}

	output, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}

	p.output = bufio.NewReader(output)

	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}

	return p, nil
}

// reap waits for the end, in a goroutine that lasts as long as the process. Output must have been
// read before.
func (p *process) reap() {
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
}

// signal does nothing to a process that has ended: package os sees to that.
func (p *process) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// stopped reports whether the process is halted by a signal.
func (p *process) stopped() bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return false // it has ended
	}

	// The state follows the name, which stands in parentheses and may have some itself.
	_, state, found := bytes.Cut(text[bytes.LastIndexByte(text, ')')+1:], []byte(" "))

	return found && bytes.HasPrefix(state, []byte("T"))
}

func (p *process) tell(line string) {
	_, _ = io.WriteString(p.input, line+"\n") // it may just have ended
}

// endWithin waits for the process to end by itself, and kills it if it doesn't.
func (p *process) endWithin(limit time.Duration) error {
	select {
	case <-p.done:
	case <-time.After(limit):
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGQUIT) // which prints its goroutines

		select {
		case <-p.done:
		case <-time.After(time.Second):
			_ = p.kill() // how it ends is told below
		}

		return fmt.Errorf("cluster: a process didn't end within %s:\n%s", limit, p.errors.String())
	}

	if p.err != nil {
		return fmt.Errorf("cluster: a process: %w\n%s", p.err, p.errors.String())
	}

	return nil
}

// kill ends the process. If something else has ended it, a panic say, kill fails and tells what the
// process wrote.
func (p *process) kill() error {
	p.signal(syscall.SIGKILL)
	<-p.done

	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
		return nil
	}

	return fmt.Errorf("cluster: a process had ended before it was killed: %w\n%s", cmp.Or(p.err, errEnded), p.errors.String())
}

// errEnded: a process ended in good order.
var errEnded = errors.New("it ended by itself")
