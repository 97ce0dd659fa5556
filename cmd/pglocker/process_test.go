//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// patience is how long a test waits for an event before it fails.
const patience = 60 * time.Second

// process is the command under way.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
	// lines are those of its standard output. The channel is closed when the command and all who inherited the
	// output have ended.
	lines chan string
	// silentAt is when that was.
	silentAt time.Time
	stderr   *shared
	exited   chan struct{}
}

// shared is a buffer that a process writes to while the test reads it.
type shared struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.text.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.text.String()
}

// launch starts the command. The test's end kills it.
func (b *bed) launch(args ...string) *process {
	b.t.Helper()

	return startProcess(b.t, b.command(args...))
}

func startProcess(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()

	reader, writer, err := os.Pipe()
	must(t, err)

	cmd.Stdout = writer
	p := startListening(t, cmd, func() io.ReadCloser { return reader })

	must(t, writer.Close())

	return p
}

// startListening starts the command. lines are what the program writes to another output.
func startListening(t *testing.T, cmd *exec.Cmd, open func() io.ReadCloser) *process {
	t.Helper()

	p := &process{t: t, cmd: cmd, lines: make(chan string, 1000), stderr: new(shared), exited: make(chan struct{})}
	errReader, errWriter, err := os.Pipe()
	must(t, err)

	cmd.Stderr = errWriter
	must(t, cmd.Start())
	must(t, errWriter.Close())

	go func() {
		defer close(p.lines)

		reader := open()
		defer reader.Close()

		for s := bufio.NewScanner(reader); s.Scan(); {
			p.lines <- s.Text()
		}

		p.silentAt = time.Now()
	}()

	copied := make(chan struct{})

	go func() {
		defer close(copied)
		defer errReader.Close()

		_, _ = bufio.NewReader(errReader).WriteTo(p.stderr)
	}()

	go func() {
		_ = cmd.Wait()

		select { // unless what it left behind has the pipe
		case <-copied:
		case <-time.After(time.Second):
		}

		close(p.exited)
	}()

	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-p.exited
	})

	return p
}

// line waits for the next line.
func (p *process) line() string {
	p.t.Helper()

	select {
	case line, ok := <-p.lines:
		if !ok {
			<-p.exited
			p.t.Fatalf("no more lines: exit code %d\n%s", exitStatus(p.cmd.ProcessState), p.stderr)
		}

		return line
	case <-time.After(patience):
		p.t.Fatalf("no line\n%s", p.stderr)
	}

	return ""
}

// says waits for a line.
func (p *process) says(want string) {
	p.t.Helper()

	if got := p.line(); got != want {
		p.t.Fatalf("it says %q, want %q\n%s", got, want, p.stderr)
	}
}

// silent waits until all who have the standard output have ended.
func (p *process) silent() {
	p.t.Helper()

	deadline := time.After(patience)

	for {
		select {
		case _, ok := <-p.lines:
			if !ok {
				return
			}
		case <-deadline:
			p.t.Fatalf("a process is left\n%s", p.stderr)
		}
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(s))
}

// ends waits for the end of the command, and wants its exit code, 128 + n for a signal.
func (p *process) ends(want int) {
	p.t.Helper()

	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatalf("it doesn't end\n%s", p.stderr)
	}

	if got := exitStatus(p.cmd.ProcessState); got != want {
		p.t.Errorf("exit code %d, want %d\n%s", got, want, p.stderr)
	}
}

func exitStatus(state *os.ProcessState) int {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}

	return state.ExitCode()
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()

	for deadline := time.Now().Add(patience); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s", what)
		}
	}
}

// free reports whether a lock can be taken, and takes it for a moment.
func (b *bed) free(id string) bool {
	b.t.Helper()

	lock, err := b.locker.TryLock(b.t.Context(), id, time.Minute)
	if err != nil {
		return false
	}

	must(b.t, lock.Unlock(b.t.Context()))

	return true
}

// waitedFor waits until another process waits for a lock whose id begins so.
func (b *bed) waitedFor(id string) {
	b.t.Helper()
	eventually(b.t, id+" is waited for", func() bool { return b.waited(id) > 0 })
}

// waited is until when, by the database's clock in seconds, another process waits for such a lock at least, 0 if
// none does.
func (b *bed) waited(id string) (until float64) {
	b.t.Helper()

	must(b.t, b.db.QueryRowContext(b.t.Context(), `SELECT coalesce(max(extract(epoch FROM contended_until)), 0)
		FROM pglocker.lock_statuses WHERE starts_with(lock_id, $1) AND contended_until > clock_timestamp()`, id).Scan(&until))

	return until
}

// alive reports whether a process is there and is no zombie.
func alive(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}

	_, rest, _ := strings.Cut(string(text), ") ")

	return !strings.HasPrefix(rest, "Z")
}

// needs skips the test where a program isn't installed. With CI=true the test fails.
func needs(t *testing.T, programs ...string) {
	t.Helper()

	for _, program := range programs {
		_, err := exec.LookPath(program)

		switch {
		case err == nil:
		case os.Getenv("CI") == "true":
			t.Fatalf("%s is not installed", program)
		default:
			t.Skipf("%s is not installed", program)
		}
	}
}

// bounded is a context for what a test waits for.
func bounded(t *testing.T) context.Context {
	t.Helper()

	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("the test has waited for too long"))
	t.Cleanup(cancel)

	return ctx
}

// token reads the line with the program's token.
func (p *process) token() int64 {
	p.t.Helper()

	token, err := strconv.ParseInt(p.line(), 10, 64)
	must(p.t, err)

	return token
}

// printing is a program that says its token, and then runs for long.
const printing = "echo $PGLOCKER_TOKEN; exec sleep 1000"

// next waits for the lock as the next holder does, and returns its token.
func (b *bed) next(id string) int64 {
	b.t.Helper()

	lock, err := b.locker.Lock(bounded(b.t), id, time.Minute)
	must(b.t, err)

	return lock.Token()
}

func (b *bed) status(id string) pglocker.LockStatus {
	b.t.Helper()

	status, err := b.locker.GetLockStatus(b.t.Context(), id)
	must(b.t, err)

	return *status
}
