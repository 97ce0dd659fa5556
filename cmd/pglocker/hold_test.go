//go:build linux

package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// held waits until the command has said that it holds the lock, and returns how the lock looks.
func (p *process) held(b *bed) pglocker.LockStatus {
	p.t.Helper()

	if line := p.line(); !strings.HasPrefix(line, "x is held until ") {
		p.t.Fatalf("it says %q", line)
	}

	return b.status("x")
}

func TestHold(t *testing.T) {
	t.Parallel()

	for name, signal := range map[string]syscall.Signal{"Ctrl-C": syscall.SIGINT, "TERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := newBed(t)
			p := b.launch("hold", "x", "--for", "2h", "--reason", "moving the archive")
			status := p.held(b)

			if left := time.Until(status.ExpiresAt); left < 119*time.Minute || left > 121*time.Minute {
				t.Errorf("it is held for another %s", left)
			}

			if !strings.Contains(status.Owner, "@") || !strings.Contains(status.Owner, ": moving the archive#") {
				t.Errorf("the owner is %q", status.Owner)
			}

			b.fails(75, []string{"moving the archive"}, "run", "-n", "x", "true")
			p.signal(signal)
			p.ends(128 + int(signal))

			if !b.free("x") {
				t.Error("the lock is held")
			}
		})
	}
}

// TestHoldOutlivesShell: the lock stays held when the shell is closed, or hold is killed.
func TestHoldOutlivesShell(t *testing.T) {
	t.Parallel()

	for name, signal := range map[string]syscall.Signal{"HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := newBed(t)
			p := b.launch("hold", "x", "--for", "2h", "--reason", "a test")
			status := p.held(b)
			p.signal(signal)
			p.ends(128 + int(signal))

			if after := b.status("x"); after != status {
				t.Errorf("%+v, and was %+v", after, status)
			}
		})
	}
}

func TestHoldDetached(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	w := decode[window](t, b.ok("hold", "x", "--for", "2h", "--reason", "a test", "--detach", "-o", "json"))
	status := b.status("x")

	if w.ID != "x" || w.Token != status.Generation || w.Owner != status.Owner || !w.Until.Equal(status.ExpiresAt) {
		t.Errorf("%+v, but the lock is %+v", w, status)
	}

	must(t, b.locker.ForceRelease(t.Context(), "x", w.Token, "the end"))

	if !b.free("x") {
		t.Error("the lock is held")
	}
}

// TestHoldFreed: hold ends when another ends the window.
func TestHoldFreed(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	p := b.launch("hold", "x", "--for", "2h", "--reason", "a test")
	must(t, b.locker.ForceRelease(t.Context(), "x", p.held(b).Generation, "a test"))
	p.ends(74)
}

// TestHoldEnds: the window ends by a release, not by a lease that ran out as after a crash.
func TestHoldEnds(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.ok("hold", "x", "--for", "1s", "--reason", "a test")

	if status := b.status("x"); status.Owner != "" {
		t.Errorf("it is left to %q", status.Owner)
	}
}

// TestHoldWaits: the window begins when the job that runs has ended.
func TestHoldWaits(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	lock := b.hold("x")
	p := b.launch("hold", "x", "--for", "2h", "--reason", "a test")
	b.waitedFor("x")
	must(t, lock.Unlock(t.Context()))
	p.held(b)
	p.signal(syscall.SIGINT)
	p.ends(130)

	// Ctrl-C while it waits.
	again := b.hold("x")
	p = b.launch("hold", "x", "--for", "2h", "--reason", "a test")
	b.waitedFor("x")
	p.signal(syscall.SIGINT)
	p.ends(130)
	must(t, again.Unlock(t.Context()))

	if !b.free("x") {
		t.Error("the lock is held")
	}

	b.hold("x")
	b.fails(75, []string{"held by other#"}, "hold", "-n", "x", "--for", "2h", "--reason", "a test")
	b.fails(64, []string{"reason"}, "hold", "x", "--for", "2h")
	b.fails(64, []string{"above zero"}, "hold", "x", "--for", "0", "--reason", "a test")
	b.fails(64, []string{"invalid owner"}, "hold", "y", "--for", "2h", "--reason", strings.Repeat("long ", 60))
}

// TestHoldWithoutServer: hold says that the lock stays held.
func TestHoldWithoutServer(t *testing.T) {
	t.Parallel()

	b, server := newBrokenBed(t)
	p := b.launch("hold", "x", "--for", "2h", "--reason", "a test")
	status := p.held(b)
	must(t, server.Kill())
	p.signal(syscall.SIGINT)
	p.ends(130)

	for _, want := range []string{
		"x stays held until " + status.ExpiresAt.Truncate(time.Second).Format(time.RFC3339),
		fmt.Sprintf("`pglocker free x --token %d`", status.Generation),
	} {
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("it doesn't say %q:\n%s", want, p.stderr)
		}
	}
}

// TestHoldUnseen: a window whose token nobody gets to see isn't held.
func TestHoldUnseen(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	must(t, err)

	reader, closed, err := os.Pipe()
	must(t, err)
	must(t, reader.Close())

	for _, c := range []struct {
		output *os.File
		code   int
		says   string
	}{
		{full, exitFailed, "no space left"},
		{closed, 128 + int(syscall.SIGPIPE), ""},
	} {
		for _, format := range []string{formatText, formatJSON} {
			cmd := b.command("hold", "-n", "x", "--for", "2h", "--reason", "a test", "-o", format)

			var stderr strings.Builder

			cmd.Stdout, cmd.Stderr = c.output, &stderr
			_ = cmd.Run()

			if got := exitStatus(cmd.ProcessState); got != c.code || !strings.Contains(stderr.String(), c.says) {
				t.Errorf("into %s: exit code %d, says %q", c.output.Name(), got, stderr.String())
			}

			if !b.free("x") {
				t.Errorf("into %s: the lock is held", c.output.Name())
			}
		}
	}

	must(t, full.Close())
	must(t, closed.Close())
}

// TestHoldUnanswered: the reply to the request by which the window begins doesn't come. hold finds out what became of
// it, or says what to do.
func TestHoldUnanswered(t *testing.T) {
	t.Parallel()

	const window = "7200000000" // microseconds, as the request has them

	for name, how := range map[string]closing{
		"the window began": noReply, "it didn't": noRequest, "the server doesn't answer any more": noReplies,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b, v := throughValve(t, how, window)
			b.env = append(b.env, "PGCONNECT_TIMEOUT=5")
			p := b.launch("hold", "x", "--for", "2h", "--reason", "a test")

			switch how {
			case noReply:
				if status := p.held(b); time.Until(status.ExpiresAt) < time.Hour {
					t.Errorf("the lease ends at %s", status.ExpiresAt)
				}

				p.signal(syscall.SIGINT)
				p.ends(130)
			case noRequest:
				p.ends(exitUnavailable)
			case noReplies:
				p.ends(exitUnavailable)

				for _, want := range []string{"isn't known", "x stays held until", "`pglocker free x`"} {
					if !strings.Contains(p.stderr.String(), want) {
						t.Errorf("it doesn't say %q:\n%s", want, p.stderr)
					}
				}

				return
			}

			v.open() // what was under way finds another token

			if !b.free("x") {
				t.Errorf("the lock is held\n%s", p.stderr)
			}
		})
	}
}
