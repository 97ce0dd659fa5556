//go:build unix

package pgtesting

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// The test binary runs itself again where a test needs a process to kill, or one
// of another user. The variable says what the child does.
const childVariable = "PGTESTING_TEST_CHILD"

const (
	childServes  = "serves"  // starts a server, reports, and waits for the end of its input
	childFreezes = "freezes" // freezes it before
	childKills   = "kills"   // kills it before
	childCreates = "creates" // reports after initdb and waits there
	childExits   = "exits"   // starts a server and calls os.Exit
	childSkips   = "skips"   // makes a TestInstance before flags are parsed
	childTests   = "tests"   // runs tests, as the arguments say
)

// report is what a child writes on its standard output.
type report struct {
	DataDir  string
	Watchdog int
	Text     string
}

func runChild(mode string, m *testing.M) int {
	switch mode {
	case childTests:
		if err := os.Unsetenv(childVariable); err != nil {
			panic(err)
		}
		return runTests(m)
	case childSkips:
		t, err := NewTestInstance(&TestInstanceConfig{DriverName: "pgx"})
		if err != nil {
			panic(err)
		}
		tell(report{Text: t.skipReason})
		return 0
	}

	reported := false
	var opts []ServerOption
	if mode == childCreates {
		opts = append(opts, func(o *serverOptions) {
			o.pickPort = func() int {
				entries, _ := filepath.Glob(filepath.Join(o.parents[0], directoryPrefix+"*", "data"))
				tell(report{DataDir: entries[0]})
				reported = true
				waitForEnd()
				return 0
			}
		})
	}
	s, err := StartServer(context.Background(), opts...)
	if err != nil {
		panic(err)
	}
	switch mode {
	case childFreezes:
		err = s.Freeze()
	case childKills:
		err = s.Kill()
	}
	if err != nil {
		panic(err)
	}
	if !reported {
		tell(report{DataDir: s.DataDir(), Watchdog: s.guard.cmd.Process.Pid})
	}
	if mode != childExits {
		waitForEnd()
	}
	return 0
}

func tell(r report) {
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		panic(err)
	}
}

func waitForEnd() { _, _ = io.Copy(io.Discard, os.Stdin) }

// child is a running copy of the test binary.
type child struct {
	cmd    *exec.Cmd
	input  io.WriteCloser
	output *bufio.Reader
}

// startChild starts one whose temporary files go to tmp.
func startChild(t *testing.T, mode, tmp string, args ...string) *child {
	t.Helper()
	skipShort(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), childVariable+"="+mode, "TMPDIR="+tmp)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c := &child{cmd: cmd}
	if c.input, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	c.output = bufio.NewReader(output)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *child) report(t *testing.T) report {
	t.Helper()
	var r report
	line, err := c.output.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &r)
	}
	if err != nil {
		t.Fatalf("the child's report: %v", err)
	}
	return r
}

// isGone tells whether there is no process of that id, or only a zombie that
// waits for init.
func isGone(t *testing.T, pid int) bool {
	t.Helper()
	all, err := findProcesses(func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	return !slices.ContainsFunc(all, func(p process) bool { return p.pid == pid })
}

func TestNothingOutlivesTheProcess(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, mode string
		end        func(*child, report) error
	}{
		{"killed with its group", childServes, func(c *child, _ report) error { return syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) }},
		{"interrupted with its group", childServes, func(c *child, _ report) error { return syscall.Kill(-c.cmd.Process.Pid, syscall.SIGINT) }},
		{"killed while the server is frozen", childFreezes, func(c *child, _ report) error { return c.cmd.Process.Kill() }},
		{"killed after the frozen server's main process", childFreezes, func(c *child, r report) error {
			main := (&Server{dir: filepath.Dir(r.DataDir)}).lockFile().pid
			return errors.Join(syscall.Kill(main, syscall.SIGKILL), c.cmd.Process.Kill())
		}},
		{"killed while the server is down", childKills, func(c *child, _ report) error { return c.cmd.Process.Kill() }},
		{"killed before the server starts", childCreates, func(c *child, _ report) error { return c.cmd.Process.Kill() }},
		{"main returns without Stop", childServes, func(c *child, _ report) error { return c.input.Close() }},
		{"exits without Stop", childExits, func(*child, report) error { return nil }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			tmp := openTempDir(t)
			running := startChild(t, c.mode, tmp)
			r := running.report(t)
			if filepath.Dir(filepath.Dir(r.DataDir)) != tmp {
				t.Fatalf("the server is in %s, not in %s", r.DataDir, tmp)
			}
			segments := sharedMemoryOf(r.DataDir)
			if err := c.end(running, r); err != nil {
				t.Fatal(err)
			}
			_ = running.cmd.Wait()

			eventually(t, "the directory is removed", func() bool { return !exists(filepath.Dir(r.DataDir)) })
			wantNothingLeft(t, r.DataDir)
			wantEmpty(t, tmp)
			awaitNoSharedMemory(t, segments)
			if r.Watchdog != 0 {
				eventually(t, "the watchdog ends", func() bool { return isGone(t, r.Watchdog) })
			}
		})
	}
}

func TestNothingOutlivesAProcessKilledInInitdb(t *testing.T) {
	t.Parallel()
	tmp := openTempDir(t)
	running := startChild(t, childServes, tmp)
	var dataDir string
	eventually(t, "initdb has begun", func() bool {
		found, _ := filepath.Glob(filepath.Join(tmp, directoryPrefix+"*", "data", "global"))
		if len(found) == 0 {
			return false
		}
		dataDir = filepath.Dir(found[0])
		return true
	})
	if err := running.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = running.cmd.Wait()
	eventually(t, "the directory is removed", func() bool { return !exists(filepath.Dir(dataDir)) })
	eventually(t, "no process is left", func() bool { return len(processesOf(t, dataDir)) == 0 })
	wantEmpty(t, tmp)
}

// TestAsAnotherUser runs the tests of servers again without root's rights.
func TestAsAnotherUser(t *testing.T) {
	t.Parallel()
	skipShort(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	nobody, err := serverAccount([]string{"nobody"})
	if err != nil {
		t.Skip(err)
	}
	dir := openTempDir(t)
	binary := filepath.Join(dir, "pgtesting.test")
	copyFile(t, "/proc/self/exe", binary)
	home, tmp := filepath.Join(dir, "home"), filepath.Join(dir, "tmp")
	for _, path := range []string{home, tmp} {
		if err := os.Mkdir(path, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := nobody.own(path); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.v", "-test.run", "^(TestServerIsAsDocumented|TestServerStopLeavesNothing|TestServerPassesBy|TestFreezeAndThaw|TestKillKeepsCommits|TestDownload|TestNothingOutlives.*/while_the_server_is_frozen)")
	cmd.Dir = tmp
	cmd.Env = append(os.Environ(), childVariable+"="+childTests, "HOME="+home, "XDG_CACHE_HOME=", "TMPDIR="+tmp)
	cmd.SysProcAttr = nobody.attributes()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	t.Logf("%s", out)
	wantEmpty(t, tmp)
}

// sharedMemoryOf returns the System V segments that the server's lock file names.
func sharedMemoryOf(dataDir string) []string {
	if id := (&Server{dir: filepath.Dir(dataDir)}).lockFile().shmID; id != "" {
		return []string{id}
	}
	return nil
}

// awaitNoSharedMemory waits for the segments to go. Those that were removed go with the
// last process that has them. That one is gone for /proc a moment before it lets go.
func awaitNoSharedMemory(t *testing.T, segments []string) {
	t.Helper()
	for _, id := range segments {
		eventually(t, "the shared memory segment "+id+" is gone", func() bool { return !sharedMemoryExists(id) })
	}
}

// sharedMemoryExists can look on Linux only.
func sharedMemoryExists(id string) bool {
	list, _ := os.ReadFile("/proc/sysvipc/shm")
	for line := range strings.Lines(string(list)) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == id {
			return true
		}
	}
	return false
}
