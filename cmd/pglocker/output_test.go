package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestClosedPipe: `pglocker ls | head -1` ends quietly.
func TestClosedPipe(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.exec("INSERT INTO pglocker.lock_statuses SELECT 'lock' || i, 2, clock_timestamp() FROM generate_series(1, 20000) AS i")

	for _, args := range [][]string{{"ls"}, {"ls", "-o", "json"}, {"ls", "--watch"}, {"--help"}, {"version"}} {
		cmd := b.command(args...)

		read, write, err := os.Pipe()
		must(t, err)

		var stderr strings.Builder

		cmd.Stdout, cmd.Stderr = write, &stderr
		must(t, read.Close())
		must(t, cmd.Start())
		must(t, write.Close())

		status := ended(t, cmd)
		if !status.Signaled() || status.Signal() != syscall.SIGPIPE || stderr.Len() > 0 {
			t.Errorf("%q: %v, says %q", args, cmd.ProcessState, stderr.String())
		}
	}
}

// TestFullDisk: output that is lost is an error.
func TestFullDisk(t *testing.T) {
	t.Parallel()

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skipf("no /dev/full: %v", err)
	}
	defer full.Close()

	b := newBed(t)
	b.hold("a")

	for _, args := range [][]string{
		{"ls"},
		{"ls", "-o", "json"},
		{"show", "a"},
		{"show", "a", "-o", "json"},
		{"history"},
		{"version"},
		{"migrate"},
		{"migrate", "--print"},
		{"prune", "--idle", "1d"},
	} {
		cmd := b.command(args...)

		var stderr strings.Builder

		cmd.Stdout, cmd.Stderr = full, &stderr
		must(t, cmd.Start())

		if status := ended(t, cmd); status.ExitStatus() != exitFailed || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("%q: %v, says %q", args, cmd.ProcessState, stderr.String())
		}
	}
}

// TestColours: a terminal gets them, unless NO_COLOR is set or it has none.
func TestColours(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.expire("a")

	plain := b.env

	for _, c := range []struct {
		env      string
		coloured bool
	}{{"TERM=xterm", true}, {"NO_COLOR=1", false}, {"TERM=dumb", false}, {"NO_COLOR=", true}} {
		b.env = append(plain[:len(plain):len(plain)], "TERM=xterm", c.env)

		for _, args := range [][]string{{"ls"}, {"show", "a"}} {
			cmd, await, _ := b.onTerminal(args...)
			text := await("")
			ended(t, cmd)

			if got := strings.Contains(text, "\x1b["); got != c.coloured || !strings.Contains(text, "expired") {
				t.Errorf("%s, %q: colours %t\n%q", c.env, args, got, text)
			}
		}
	}

	if text := b.ok("ls"); strings.Contains(text, "\x1b") {
		t.Errorf("into a pipe: %q", text)
	}
}

// TestWatchOnTerminal: as much as fits.
func TestWatchOnTerminal(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.exec("INSERT INTO pglocker.lock_statuses SELECT 'lock' || i, 2, clock_timestamp() FROM generate_series(100, 149) AS i")

	cmd, await, write := b.onTerminal("ls", "--watch")
	text := await("... and 30 more")

	if !strings.Contains(text, "50 locks at ") || !strings.Contains(text, "lock119") || strings.Contains(text, "lock120") {
		t.Errorf("on 24 lines:\n%s", text)
	}

	write("\x03")
	await("")

	if status := ended(t, cmd); !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("interrupted: %v", cmd.ProcessState)
	}
}

// TestNoHangUp: under nohup a hang-up is ignored.
func TestNoHangUp(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.create("a")

	cmd := b.command("ls", "--watch", "--interval", "20ms", "-o", "json")
	sh := exec.CommandContext(t.Context(), "sh", "-c", `trap "" HUP; exec "$@"`, "sh", cmd.Path)
	sh.Args, sh.Env = append(sh.Args, cmd.Args[1:]...), cmd.Env
	lines := b.start(sh)

	<-lines
	must(t, sh.Process.Signal(syscall.SIGHUP))
	b.create("b")

	for line := range lines {
		if strings.Contains(line, `"id":"b"`) {
			return
		}
	}

	t.Error("it ended")
}

// TestInterruptedBeforeTheDatabaseAnswers: Ctrl-C ends it at any moment.
func TestInterruptedBeforeTheDatabaseAnswers(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	tx, err := b.db.BeginTx(t.Context(), nil)
	must(t, err)

	_, err = tx.ExecContext(t.Context(), "LOCK TABLE pglocker.lock_statuses IN ACCESS EXCLUSIVE MODE")
	must(t, err)

	for _, args := range [][]string{{"ls"}, {"show", "a"}, {"prune", "--idle", "1d"}} {
		cmd := b.command(args...)
		must(t, cmd.Start())
		b.awaitBlocked("pglocker " + args[0])
		must(t, cmd.Process.Signal(syscall.SIGTERM))

		if status := ended(t, cmd); !status.Signaled() || status.Signal() != syscall.SIGTERM {
			t.Errorf("%q: %v", args, cmd.ProcessState)
		}
	}

	must(t, tx.Rollback())
}
