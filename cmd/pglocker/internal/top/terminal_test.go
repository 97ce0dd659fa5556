//go:build unix

package top_test

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/charmbracelet/x/vt"
	"github.com/creack/pty"
)

// terminal is a process in a pseudo-terminal, whose output an emulator draws.
type terminal struct {
	t   *testing.T
	cmd *exec.Cmd
	// pty is the side of the terminal, and tty that of the process.
	pty, tty *os.File
	// state is the tty's before the process was started.
	state *term.State

	// mu guards screen, which the pump writes, and output, all that was written.
	mu     sync.Mutex
	screen *vt.Emulator
	output bytes.Buffer
	// drawn has a token after each write.
	drawn chan struct{}
	ended chan error
}

// deadline is how long a test waits for what it expects. Under load a process is slow.
const deadline = 60 * time.Second

// start runs the view on a database.
func start(t *testing.T, url string, width, height int, env ...string) *terminal {
	t.Helper()

	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}

	x := &terminal{
		t: t, pty: ptmx, tty: tty, screen: vt.NewEmulator(width, height),
		drawn: make(chan struct{}, 1), ended: make(chan error, 1),
	}

	if err := pty.Setsize(ptmx, &pty.Winsize{Rows: uint16(height), Cols: uint16(width)}); err != nil {
		t.Fatal(err)
	}

	if x.state, err = term.GetState(tty.Fd()); err != nil {
		t.Fatal(err)
	}

	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}

	x.cmd = exec.Command(self)
	x.cmd.Env = append(os.Environ(), append([]string{"TERM=xterm-256color", childURL + "=" + url}, env...)...)
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	// It begins a session in its terminal, as a login does. So it is told of a new size.
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}

	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}

	go func() { x.ended <- x.cmd.Wait() }()
	go x.pump()
	go x.answer()

	t.Cleanup(func() {
		_ = x.cmd.Process.Kill()
		_ = tty.Close()
		_ = ptmx.Close()
		_ = x.screen.InputPipe().(io.Closer).Close() // Close of the emulator itself races with its Read
	})

	return x
}

// pump draws what the process writes.
func (x *terminal) pump() {
	buf := make([]byte, 1<<16)

	for {
		n, err := x.pty.Read(buf)

		x.mu.Lock()
		x.output.Write(buf[:n])
		_, _ = x.screen.Write(buf[:n])
		x.mu.Unlock()

		select {
		case x.drawn <- struct{}{}:
		default:
		}

		if err != nil {
			return
		}
	}
}

// answer sends the answers of the emulator to questions of the process.
func (x *terminal) answer() {
	buf := make([]byte, 1<<10)

	for {
		n, err := x.screen.Read(buf)
		if err != nil {
			return
		}

		_, _ = x.pty.Write(buf[:n])
	}
}

// text is the screen, without spaces at the end of lines.
func (x *terminal) text() string {
	x.mu.Lock()
	defer x.mu.Unlock()

	var b strings.Builder

	for y := range x.screen.Height() {
		line := ""

		for col := 0; col < x.screen.Width(); col++ {
			if c := x.screen.CellAt(col, y); c == nil || c.Content == "" {
				if c == nil || c.Width != 0 {
					line += " "
				}
			} else {
				line += c.Content
			}
		}

		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}

	return b.String()
}

// until waits until the screen is as wanted.
func (x *terminal) until(what string, wanted func(screen string) bool) string {
	x.t.Helper()

	timeout := time.After(deadline)

	for {
		screen := x.text()
		if wanted(screen) {
			return screen
		}

		select {
		case <-x.drawn:
		case err := <-x.ended:
			x.ended <- err

			select {
			case <-x.drawn: // what it wrote last is still read from the terminal
			case <-time.After(5 * time.Second):
				x.t.Fatalf("waiting for %s: the process has ended: %v\n%s", what, err, x.text())
			}
		case <-timeout:
			x.t.Fatalf("waiting for %s:\n%s", what, screen)
		}
	}
}

// shows waits until the screen has all the texts.
func (x *terminal) shows(texts ...string) string {
	x.t.Helper()

	return x.until(strings.Join(texts, " | "), func(screen string) bool {
		for _, text := range texts {
			if !strings.Contains(screen, text) {
				return false
			}
		}

		return true
	})
}

// hides waits until the text is gone.
func (x *terminal) hides(text string) string {
	x.t.Helper()

	return x.until("no "+text, func(screen string) bool { return !strings.Contains(screen, text) })
}

// row waits until a line of the screen has all the texts.
func (x *terminal) row(texts ...string) string {
	x.t.Helper()

	var found string

	x.until("a line with "+strings.Join(texts, " | "), func(screen string) bool {
	lines:
		for line := range strings.Lines(screen) {
			for _, text := range texts {
				if !strings.Contains(line, text) {
					continue lines
				}
			}

			found = line

			return true
		}

		return false
	})

	return found
}

// keys types.
func (x *terminal) keys(text string) {
	x.t.Helper()

	if _, err := x.pty.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

const (
	enter  = "\r"
	escape = "\x1b"
	down   = "\x1b[B"
	ctrlC  = "\x03"
)

func (x *terminal) resize(width, height int) {
	x.t.Helper()
	x.mu.Lock()
	x.screen.Resize(width, height)
	x.mu.Unlock()

	if err := pty.Setsize(x.pty, &pty.Winsize{Rows: uint16(height), Cols: uint16(width)}); err != nil {
		x.t.Fatal(err)
	}
}

// ends waits until the process has ended, and checks that the terminal is as it was. It returns the exit code.
func (x *terminal) ends() int {
	x.t.Helper()

	select {
	case err := <-x.ended:
		x.ended <- err
	case <-time.After(deadline):
		x.t.Fatalf("the process goes on:\n%s", x.text())
	}

	state, err := term.GetState(x.tty.Fd())
	if err != nil {
		x.t.Fatal(err)
	}

	if *state != *x.state {
		x.t.Errorf("the terminal's state is %+v, was %+v", *state, *x.state)
	}

	x.until("the screen from before", func(string) bool {
		x.mu.Lock()
		defer x.mu.Unlock()

		return !x.screen.IsAltScreen() && !x.screen.CursorHidden()
	})

	return x.cmd.ProcessState.ExitCode()
}
