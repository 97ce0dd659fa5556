//go:build linux

package child_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker/cmd/pglocker/internal/child"
)

// asSupervisor is the environment variable that has the test program run its arguments under a Supervisor, with its
// value as the grace. The context ends when a line comes on descriptor 3.
const asSupervisor = "PGLOCKER_TEST_AS_SUPERVISOR"

// patience is how long a test waits for an event.
const patience = time.Minute

var errEnded = errors.New("the test has ended it")

func TestMain(m *testing.M) {
	grace := os.Getenv(asSupervisor)
	if grace == "" {
		// Started by nohup, this process would ignore HUP, and so would all that it starts.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
		os.Exit(m.Run())
	}

	_ = os.Unsetenv(asSupervisor)

	supervise(grace, os.Args[1:])
}

// supervise runs a command, and says on descriptor 4 how it ended.
func supervise(grace string, args []string) {
	syscall.CloseOnExec(3)
	syscall.CloseOnExec(4)

	control, report := os.NewFile(3, "control"), os.NewFile(4, "report")
	supervisor := child.New()
	supervisor.Caught()

	idle, again, stop := supervisor.Context(context.Background())
	ctx, end := context.WithCancelCause(context.Background())

	defer stop()
	defer end(nil)

	if args[0] == "idle" {
		fmt.Println("ready")
		<-idle.Done()
		fmt.Fprintln(report, context.Cause(idle))
		<-again.Done()
		fmt.Fprintln(report, context.Cause(again))

		return
	}

	if args[0] == "over" {
		args = args[1:]
		end(errEnded)
	}

	go func() {
		if line, _ := bufio.NewReader(control).ReadString('\n'); line != "" {
			end(errEnded)
		}
	}()

	path, err := child.Find(args[0])
	if err == nil {
		var exit child.Exit

		length, _ := time.ParseDuration(grace)
		exit, err = supervisor.Run(ctx, child.Command{Path: path, Args: args, Env: os.Environ(), Grace: length})

		if err == nil {
			fmt.Fprintf(report, "status %d, signal %d, asked %d\n", exit.Status(), exit.Signal, supervisor.Asked())
		}
	}

	if err != nil {
		fmt.Fprintln(report, err, errors.Is(err, child.ErrNotFound), errors.Is(err, child.ErrNotExecutable))
	}

	supervisor.Close()
}

// supervised is a command under a Supervisor.
type supervised struct {
	t       *testing.T
	cmd     *exec.Cmd
	control io.WriteCloser
	// out are the lines of the command's standard output, report those of the supervisor.
	out, report *lines
}

// lines are those of a pipe. The channel is closed when all who have the pipe have ended.
type lines struct {
	t    *testing.T
	name string
	c    chan string
}

func newLines(t *testing.T, name string, from io.Reader) *lines {
	t.Helper()

	l := &lines{t, name, make(chan string, 100)}

	go func() {
		defer close(l.c)

		for s := bufio.NewScanner(from); s.Scan(); {
			l.c <- s.Text()
		}
	}()

	return l
}

// next waits for a line, "" at the end.
func (l *lines) next() string {
	l.t.Helper()

	select {
	case line := <-l.c:
		return line
	case <-time.After(patience):
		l.t.Fatalf("no line of the %s", l.name)
	}

	return ""
}

func (l *lines) want(wanted ...string) {
	l.t.Helper()

	for _, want := range wanted {
		if line := l.next(); line != want {
			l.t.Fatalf("the %s says %q, want %q", l.name, line, want)
		}
	}
}

func supervisedBy(t *testing.T, grace time.Duration, args ...string) *supervised {
	t.Helper()

	path, err := os.Executable()
	must(t, err)

	controlReader, control, err := os.Pipe()
	must(t, err)

	report, reportWriter, err := os.Pipe()
	must(t, err)

	out, outWriter, err := os.Pipe()
	must(t, err)

	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), asSupervisor+"="+grace.String(), "GOCOVERDIR="+t.TempDir())
	cmd.ExtraFiles = []*os.File{controlReader, reportWriter}
	cmd.Stdout = outWriter
	must(t, cmd.Start())

	for _, file := range cmd.ExtraFiles {
		must(t, file.Close())
	}

	must(t, outWriter.Close())

	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = control.Close()
	})

	return &supervised{t, cmd, control, newLines(t, "command", out), newLines(t, "supervisor", report)}
}

// end ends the context.
func (s *supervised) end() {
	s.t.Helper()

	_, err := s.control.Write([]byte("end\n"))
	must(s.t, err)
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

// group is the process group of a process, from /proc.
func group(t *testing.T, pid string) string {
	t.Helper()

	text, err := os.ReadFile("/proc/" + pid + "/stat")
	must(t, err)

	_, rest, _ := strings.Cut(string(text), ") ")

	return strings.Fields(rest)[2]
}

func TestExit(t *testing.T) {
	t.Parallel()

	folder := t.TempDir()
	headless := filepath.Join(folder, "headless")
	must(t, os.WriteFile(headless, []byte("echo $1; exit 9\n"), 0o700))
	must(t, os.WriteFile(filepath.Join(folder, "text"), nil, 0o600))

	broken := filepath.Join(folder, "broken")
	must(t, os.WriteFile(broken, []byte("#!/no/such/shell\n"), 0o700))

	for _, test := range []struct {
		want string
		args []string
	}{
		{"status 0, signal 0, asked 0", []string{"true"}},
		{"status 7, signal 0, asked 0", []string{"sh", "-c", "exit 7"}},
		{"status 255, signal 0, asked 0", []string{"sh", "-c", "exit 255"}},
		{"status 143, signal 15, asked 0", []string{"sh", "-c", "kill -TERM $$"}},
		{"status 137, signal 9, asked 0", []string{"sh", "-c", "kill -KILL $$"}},
		{"status 9, signal 0, asked 0", []string{headless, "a script without a first line"}},
		{"not found: no-such-program true false", []string{"no-such-program"}},
		{"not found: /no/such/program true false", []string{"/no/such/program"}},
		{"no such file or directory true false", []string{broken}},
		{"permission denied false true", []string{filepath.Join(folder, "text")}},
		{errEnded.Error(), []string{"over", "echo", "it runs"}},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			t.Parallel()

			s := supervisedBy(t, time.Second, test.args...)
			if got := s.report.next(); !strings.Contains(got, test.want) {
				t.Errorf("the supervisor says %q, want %q", got, test.want)
			}

			if line := s.out.next(); line == "it runs" {
				t.Error("the command has run though its context had ended")
			}
		})
	}
}

// TestGroup: the command is a group of its own, and gets the signals that the supervisor gets, as do those that it
// has started.
func TestGroup(t *testing.T) {
	t.Parallel()

	s := supervisedBy(t, time.Second, "sh", "-c", `
trap 'echo USR1' USR1
(trap 'echo inner; exit' USR1; echo ready; while :; do sleep 0.05; done) &
while read line </dev/null; do :; done; echo $$; while :; do sleep 0.05; done`)
	lines := map[string]bool{s.out.next(): true, s.out.next(): true}
	delete(lines, "ready")

	for pid := range lines {
		if got := group(t, pid); got != pid {
			t.Errorf("the command %s is in the group %s", pid, got)
		}
	}

	must(t, s.cmd.Process.Signal(syscall.SIGUSR1))

	if got := map[string]bool{s.out.next(): true, s.out.next(): true}; !got["USR1"] || !got["inner"] {
		t.Errorf("they say %v", got)
	}

	must(t, s.cmd.Process.Signal(syscall.SIGTERM))
	s.report.want("status 143, signal 15, asked 15")
}

// TestIdle: while no command runs, a signal ends the context, and another one ends it again.
func TestIdle(t *testing.T) {
	t.Parallel()

	s := supervisedBy(t, time.Second, "idle")
	s.out.want("ready")
	must(t, s.cmd.Process.Signal(syscall.SIGUSR1))
	must(t, s.cmd.Process.Signal(syscall.SIGTERM))
	s.report.want("ended by the signal terminated")
	must(t, s.cmd.Process.Signal(syscall.SIGINT))
	s.report.want("ended by the signal interrupt")
}

// TestEnd: the end of the context ends the command and all its descendants, by TERM, and after the grace by KILL.
func TestEnd(t *testing.T) {
	t.Parallel()

	const (
		waits    = `while :; do sleep 0.05; done`
		stubborn = `trap "" TERM; echo $$; ` + waits
	)

	for _, test := range []struct {
		name, script string
		// pids is how many lines the script prints, each a process.
		pids   int
		report string
		says   []string
	}{
		{"by TERM", `trap 'echo bye; exit 3' TERM; echo $$; ` + waits, 1, "status 3, signal 0, asked 0", []string{"bye"}},
		{"by KILL", stubborn, 1, "status 137, signal 9, asked 0", nil},
		{"a child", `sh -c '` + stubborn + `' & wait`, 1, "status 143, signal 15, asked 0", nil},
		{"by setsid", `setsid sh -c '` + stubborn + `' & wait`, 1, "status 143, signal 15, asked 0", nil},
		{"by a double fork", `(setsid sh -c "sh -c '` + strings.ReplaceAll(stubborn, "$", `\$`) + `' & exit" & exit); ` + waits, 1, "status 143, signal 15, asked 0", nil},
		{"two that left", `setsid sh -c '` + stubborn + `' & setsid sh -c '` + stubborn + `' & ` + waits, 2, "status 143, signal 15, asked 0", nil},
		{"stopped", `echo $$; kill -STOP $$`, 1, "status 143, signal 15, asked 0", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			script := strings.ReplaceAll(test.script, `trap "" TERM`, "trap : TERM") // in quotes of two levels

			grace := 100 * time.Millisecond
			if test.says != nil { // it ends by itself
				grace = time.Minute
			}

			s := supervisedBy(t, grace, "sh", "-c", script)

			var pids []string
			for range test.pids {
				pids = append(pids, s.out.next())
			}

			s.end()
			s.out.want(test.says...)
			s.report.want(test.report)

			for _, pid := range pids {
				number, err := strconv.Atoi(pid)
				must(t, err)

				if err := syscall.Kill(number, 0); !errors.Is(err, syscall.ESRCH) {
					t.Errorf("the process %d is left: %v", number, err)
				}
			}
		})
	}
}

// TestLeftBehind: what a command leaves behind that ends by itself runs on. It is ended with the context, if that
// ends before the command.
func TestLeftBehind(t *testing.T) {
	t.Parallel()

	s := supervisedBy(t, time.Second, "sh", "-c", "setsid sleep 1000 & echo $!")
	pid, err := strconv.Atoi(s.out.next())
	must(t, err)
	s.report.want("status 0, signal 0, asked 0")
	_ = s.cmd.Wait()

	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("it doesn't run: %v", err)
	}
}

// TestKilled: the command is killed when the supervisor is.
func TestKilled(t *testing.T) {
	t.Parallel()

	s := supervisedBy(t, time.Second, "sh", "-c", `trap "" TERM HUP; echo runs; while :; do sleep 0.05; done`)
	s.out.want("runs")
	must(t, s.cmd.Process.Kill())
	s.out.want("") // the pipe is closed
}

// TestDescriptors: the command has no other descriptors than it would have without the supervisor. It isn't parallel: a
// test that opens a terminal at the same time may pass that on.
func TestDescriptors(t *testing.T) {
	// 3 and 4 are those of supervise. Without it, they may be what this process has inherited, as from flock.
	list := []string{"sh", "-c", "exec 3>&- 4>&-; echo /proc/$$/fd/*"}

	direct, err := exec.CommandContext(t.Context(), list[0], list[1:]...).Output()
	must(t, err)

	s := supervisedBy(t, time.Second, list...)

	if got, want := len(strings.Fields(s.out.next())), len(strings.Fields(string(direct))); got != want {
		t.Errorf("it has %d descriptors, and %d without the supervisor", got, want)
	}
}
