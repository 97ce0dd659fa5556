package main

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/creack/pty"

	"github.com/ismurov/pglocker"
)

func TestFree(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	lock := b.hold("a")
	token := fmt.Sprint(lock.Token())

	b.fails(exitUsage, []string{"--yes"}, "free", "a", "--token", token, "--reason", "test") // no terminal
	b.fails(exitUsage, []string{"--yes needs --token and --reason"}, "free", "a", "--token", token, "--yes")
	b.fails(exitUsage, []string{"--yes needs --token and --reason"}, "free", "a", "--reason", "test", "--yes")
	b.fails(exitUsage, []string{"--yes needs"}, "free", "a", "--token", token, "--reason", " ", "--yes")
	b.fails(exitFailed, []string{"not 1", "nothing was released"}, "free", "a", "--token", "1", "--reason", "test", "--yes")
	b.fails(exitFailed, []string{"there is no lock"}, "free", "b", "--token", "1", "--reason", "test", "--yes")
	b.fails(exitUsage, []string{"reserved"}, "free", "pglocker:watermark", "--token", "1", "--reason", "test", "--yes")

	if s, err := b.locker.GetLockStatus(t.Context(), "a"); err != nil || s.Generation != lock.Token() {
		t.Fatalf("released too early: %+v, %v", s, err)
	}

	f := decode[freed](t, b.ok("free", "a", "--token", token, "--reason", "INC-1", "--yes", "--owner", "night", "-o", "json"))
	if !f.Released || f.ID != "a" || f.Token != lock.Token() || f.Owner == nil || f.Reason != "INC-1" {
		t.Errorf("freed: %+v", f)
	}

	events := decode[[]eventRecord](t, b.ok("history", "a", "-o", "json"))
	if e := events[len(events)-1]; e.Event != pglocker.EventForced || *e.Reason != "INC-1 (by night)" {
		t.Errorf("the history says %+v", e)
	}

	r := decode[lockRecord](t, b.ok("show", "a", "-o", "json"))
	if text := b.ok("free", "a", "--token", fmt.Sprint(r.Token), "--reason", "test", "--yes"); !strings.Contains(text, "nothing to release") {
		t.Errorf("of a free lock: %q", text)
	}
}

// onTerminal runs the command on a terminal. It returns a function that waits for a text on it, and one that types.
func (b *bed) onTerminal(args ...string) (cmd *exec.Cmd, await func(text string) string, write func(text string)) {
	b.t.Helper()

	cmd = b.command(args...)

	file, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	must(b.t, err)

	b.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = file.Close()
	})

	var seen strings.Builder

	return cmd, func(text string) string {
			b.t.Helper()

			for buffer := make([]byte, 4096); text == "" || !strings.Contains(seen.String(), text); {
				n, err := file.Read(buffer)
				seen.Write(buffer[:n])

				if err != nil { // EIO: the other end is closed
					if text != "" && !strings.Contains(seen.String(), text) {
						b.t.Fatalf("no %q on the terminal: %v\n%s", text, err, seen.String())
					}

					break
				}
			}

			return seen.String()
		}, func(text string) {
			b.t.Helper()

			_, err := io.WriteString(file, text)
			must(b.t, err)
		}
}

// ended waits for a process that has a terminal.
func ended(t *testing.T, cmd *exec.Cmd) syscall.WaitStatus {
	t.Helper()

	err := cmd.Wait()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}

	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)

	return status
}

func TestFreeAsks(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	lock := b.hold("a")

	held := func() bool {
		t.Helper()

		s, err := b.locker.GetLockStatus(t.Context(), "a")
		must(t, err)

		return s.Generation == lock.Token()
	}

	// An answer that isn't yes.
	cmd, await, write := b.onTerminal("free", "a", "--reason", "test")
	await("isn't stopped")
	await("[y/N] ")
	write("n\n")

	if text := await(""); !strings.Contains(text, "nothing was released") {
		t.Errorf("refused:\n%s", text)
	}

	if s := ended(t, cmd); s.ExitStatus() != exitFailed || !held() {
		t.Errorf("refused: status %d, held %t", s.ExitStatus(), held())
	}

	// Ctrl-C.
	cmd, await, write = b.onTerminal("free", "a")
	await("Why")
	write("\x03")
	await("")

	if s := ended(t, cmd); !s.Signaled() || s.Signal() != syscall.SIGINT || !held() {
		t.Errorf("interrupted: %v, held %t", cmd.ProcessState, held())
	}

	// The end of the input.
	cmd, await, write = b.onTerminal("free", "a")
	await("Why")
	write("\x04")
	await("nothing was released")

	if s := ended(t, cmd); s.ExitStatus() != exitFailed || !held() {
		t.Errorf("without an answer: status %d, held %t", s.ExitStatus(), held())
	}

	// A reason, after an empty one, and yes.
	cmd, await, write = b.onTerminal("free", "a")
	await("Why do you release it? ")
	write("\n")
	await("Why do you release it? \r\nWhy do you release it? ")
	write("INC-2\n")
	await("[y/N] ")
	write("y\n")
	await("released a, token")
	await("")

	if s := ended(t, cmd); s.ExitStatus() != 0 || held() {
		t.Errorf("confirmed: status %d, held %t", s.ExitStatus(), held())
	}

	if text := b.ok("history", "a"); !strings.Contains(text, "reason: INC-2 (by ") {
		t.Errorf("the history:\n%s", text)
	}
}

// TestFreeUnknown: the connection breaks while the release is under way.
func TestFreeUnknown(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	lock := b.hold("a")

	tx, err := b.db.BeginTx(t.Context(), nil)
	must(t, err)

	_, err = tx.ExecContext(t.Context(), "SELECT FROM pglocker.lock_statuses WHERE lock_id = 'a' FOR UPDATE")
	must(t, err)

	cmd := b.command("free", "a", "--token", fmt.Sprint(lock.Token()), "--reason", "test", "--yes")

	var stderr strings.Builder

	cmd.Stderr = &stderr
	must(t, cmd.Start())
	b.awaitBlocked("pglocker free")
	must(t, cmd.Process.Signal(syscall.SIGINT))

	if s := ended(t, cmd); !s.Signaled() || s.Signal() != syscall.SIGINT {
		t.Errorf("interrupted: %v", cmd.ProcessState)
	}

	if !strings.Contains(stderr.String(), "isn't known") {
		t.Errorf("it says: %s", stderr.String())
	}

	must(t, tx.Rollback())
}
