//go:build unix

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// screen is a process in a terminal of 80x24.
type screen struct {
	t     *testing.T
	cmd   *exec.Cmd
	file  *os.File
	shown *shared
	ended chan error
}

func onTerminal(t *testing.T, cmd *exec.Cmd) *screen {
	t.Helper()

	cmd.Env = append(cmd.Env, "TERM=xterm", "LESS=", "PS1=ready> ", "HISTFILE=")

	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	must(t, err)

	s := &screen{t: t, cmd: cmd, file: file, shown: new(shared), ended: make(chan error, 1)}

	copied := make(chan struct{})

	go func() {
		defer close(copied)

		buffer := make([]byte, 4096)

		for {
			n, err := file.Read(buffer)
			_, _ = s.shown.Write(buffer[:n])

			if err != nil { // the system's error at the end of a terminal
				return
			}
		}
	}()

	go func() { s.ended <- cmd.Wait() }()

	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = file.Close()

		<-copied
	})

	return s
}

// keys types, and waits until the terminal shows something new: what it shows from then on.
func (s *screen) keys(keys, shows string) {
	s.t.Helper()

	before := len(s.shown.String())

	_, err := s.file.WriteString(keys)
	must(s.t, err)
	s.shows(before, shows)
}

// shows waits until the terminal shows a text after what it had shown before.
func (s *screen) shows(before int, text string) {
	s.t.Helper()

	for deadline := time.Now().Add(patience); !strings.Contains(s.shown.String()[before:], text); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("it doesn't show %q after\n%q", text, s.shown.String()[before:])
		}
	}
}

// ends waits for the end of the process.
func (s *screen) ends(want int) {
	s.t.Helper()

	select {
	case <-s.ended:
		if got := exitStatus(s.cmd.ProcessState); got != want {
			s.t.Errorf("exit code %d, want %d\n%q", got, want, s.shown)
		}
	case <-time.After(patience):
		s.t.Fatalf("it doesn't end\n%q", s.shown)
	}
}

// longFile makes a file of many lines.
func longFile(t *testing.T) string {
	t.Helper()

	var text strings.Builder
	for i := range 500 {
		fmt.Fprintf(&text, "line %d.\n", i+1)
	}

	path := filepath.Join(t.TempDir(), "long")
	must(t, os.WriteFile(path, []byte(text.String()), 0o600))

	return path
}

func TestRunLess(t *testing.T) {
	t.Parallel()
	needs(t, "less")

	b := newBed(t)
	s := onTerminal(t, b.command("run", "x", "less", longFile(t)))
	s.shows(0, "line 23.")
	s.keys("G", "line 500.")
	s.keys("g", "line 1.")

	// Ctrl-Z does nothing where no shell would continue the job.
	s.keys("\x1a", "line 1.")
	s.keys("G", "line 500.")

	_, err := s.file.WriteString("q")
	must(t, err)
	s.ends(0)
}

func TestRunVim(t *testing.T) {
	t.Parallel()
	needs(t, "vim")

	b := newBed(t)
	file := filepath.Join(t.TempDir(), "new")
	s := onTerminal(t, b.command("run", "x", "vim", "-u", "NONE", "-N", file))
	s.shows(0, "[New")
	s.keys("ia text\x1b", "a text")
	s.keys(":wq\r", "written")
	s.ends(0)

	text, err := os.ReadFile(file)
	must(t, err)

	if string(text) != "a text\n" {
		t.Errorf("the file has %q", text)
	}
}

// shell starts bash on a terminal. $run is the command.
func (b *bed) shell() *screen {
	b.t.Helper()
	needs(b.t, "bash")

	cmd := b.command()
	cmd.Env = append(cmd.Env, "run="+testProgram(b.t)+" run")
	cmd.Path, cmd.Args = "/bin/bash", []string{"bash", "--norc", "--noprofile", "-i"}
	s := onTerminal(b.t, cmd)
	s.shows(0, "ready> ")

	return s
}

// TestRunJobControl: Ctrl-Z stops the job, fg continues it, and the terminal is the shell's again at the end. (The
// program is cat. At the moment when less has drawn a page, Ctrl-Z may be lost on it, without pglocker as well.)
func TestRunJobControl(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	s := b.shell()
	s.keys("$run x sh -c 'echo be''gun; exec cat'\r", "begun")
	s.keys("one\r", "one\r\none")
	s.keys("\x1a", "Stopped")
	s.keys("fg\r", "cat")
	s.keys("two\r", "two\r\ntwo")
	s.keys("\x04", "ready> ")
	s.keys("echo code=$?\r", "code=0")

	// In the background it waits for the terminal.
	s.keys("$run x sh -c 'read line; echo got $line' & echo; wait $!; jobs\r", "Stopped")
	s.keys("fg\r", "read line")
	s.keys("hello\r", "got hello")

	// Ctrl-Z while it waits for the lock.
	lock := b.hold("y")
	s.keys("$run y echo gr''anted\r", "run y")
	b.waitedFor("y")
	s.keys("\x1a", "Stopped")
	must(t, lock.Unlock(t.Context()))
	s.keys("fg\r", "granted")

	// Ctrl-C reaches the program, and only that. A shell that starts a child at that moment may keep the signal from it,
	// and ends after the child: so these are short.
	s.keys("$run x sh -c 'echo be''gun; while :; do sleep 0.05; done'\r", "begun")
	s.keys("\x03", "ready> ")
	s.keys("echo code=$?\r", "code=130")

	if !b.free("x") {
		t.Error("the lock is held")
	}
}

// TestRunInBackgroundOfNoShell: the shell that would give the job the terminal has ended. The program would be stopped
// for ever.
func TestRunInBackgroundOfNoShell(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	s := b.shell()
	s.keys("(export shell=$BASHPID; $run x sh -c 'while kill -0 $shell; do sleep 0.01; done; read line </dev/tty' &)\r", "it wanted the terminal")
	b.next("x")
}

// TestRunStoppedLosesTerminal: a program that was stopped goes on, and ends, when its terminal has gone.
func TestRunStoppedLosesTerminal(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	s := b.shell()
	s.keys("$run x sh -c 'echo be''gun $$.; kill -STOP $$; echo on'\r", ".\r\n")

	_, said, _ := strings.Cut(s.shown.String(), "begun ")
	pid, _, _ := strings.Cut(said, ".")
	eventually(t, "the program is stopped", func() bool { return state(t, pid) == "T" })
	must(t, s.cmd.Process.Kill())
	must(t, s.file.Close())
	b.next("x")
}

// TestRunInScript: the job that Ctrl-Z stops is the script that the command is part of.
func TestRunInScript(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	s := b.shell()
	s.keys("sh -c '$run x sh -c \"echo be\\\"\\\"gun; exec cat\"; echo so''on'\r", "begun")
	s.keys("one\r", "one\r\none")
	s.keys("\x1a", "Stopped")
	s.keys("fg\r", "cat")
	s.keys("two\r", "two\r\ntwo")
	s.keys("\x04", "soon")
}

// TestRunInPipeline: the other programs of a pipeline have the terminal, until the command's program wants it.
func TestRunInPipeline(t *testing.T) {
	t.Parallel()
	needs(t, "less")

	b := newBed(t)
	s := b.shell()
	s.keys("$run x cat "+longFile(t)+" | less\r", "line 23.")
	s.keys("G", "line 500.")
	s.keys("q", "ready> ")
	s.keys("$run x sh -c 'read line; echo got $line' | cat\r", "|")
	s.keys("hello\r", "got hello")
}

// TestRunStoppedJobLosesLock: the lease ends while the job is stopped. The program is ended when the job is
// continued.
func TestRunStoppedJobLosesLock(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	s := b.shell()
	s.keys("$run --ttl 1s --grace 100ms x sh -c 'echo be''gun; exec cat'\r", "begun")
	s.keys("one\r", "one\r\none")
	s.keys("\x1a", "Stopped")
	b.next("x")
	s.keys("fg\r", "lock lost")
	s.keys("echo code=$?\r", "code=74")
}
