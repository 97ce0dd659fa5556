//go:build linux

package main

import (
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestRunKilled: if the command is killed by SIGKILL, its program is dead before the next holder has the lock.
func TestRunKilled(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	p := b.launch("run", "--ttl", "2s", "--grace", "100ms", "x", "sh", "-c", `trap "" TERM; `+printing)
	token := p.token()
	p.signal(syscall.SIGKILL)
	p.silent()

	if next := b.next("x"); next <= token {
		t.Errorf("the next holder has the token %d after %d", next, token)
	}
}

// TestRunProgramKilled: the lock is released at once if the program is killed.
func TestRunProgramKilled(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	p := b.launch("run", "x", "sh", "-c", "echo $$; exec sleep 1000")
	must(t, syscall.Kill(atoi(t, p.line()), syscall.SIGKILL))
	p.ends(137)

	if !b.free("x") {
		t.Error("the lock is held")
	}
}

// TestRunStopped: the command is stopped for longer than its lease, and another is granted the lock. The
// program has a token that is smaller than the next holder's, and is dead as soon as the command goes on.
func TestRunStopped(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	p := b.launch("run", "--ttl", "1s", "--grace", "100ms", "x", "sh", "-c", `trap "" TERM; `+printing)
	token := p.token()
	p.signal(syscall.SIGSTOP)

	if next := b.next("x"); next <= token {
		t.Errorf("the next holder has the token %d after %d", next, token)
	}

	p.signal(syscall.SIGCONT)
	p.silent()
	p.ends(74)
}

// leaving is a program that leaves its process group in two ways, and has both ignore TERM.
const leaving = `
echo $PGLOCKER_TOKEN
stubborn='trap "" TERM HUP; echo left; while :; do sleep 1; done'
setsid sh -c "$stubborn" &
(setsid sh -c "$stubborn & exit" & exit) &
trap "" TERM
while :; do sleep 1; done`

// TestRunFreed: the lock is released by force. The program gets TERM, and all descendants KILL after the grace,
// those that have left its process group included.
func TestRunFreed(t *testing.T) {
	t.Parallel()
	needs(t, "setsid")

	b := newBed(t)
	p := b.launch("run", "--ttl", "1s", "--grace", "200ms", "x", "sh", "-c", leaving)
	token := p.token()
	p.says("left")
	p.says("left")
	must(t, b.locker.ForceRelease(t.Context(), "x", token, "a test"))
	p.silent()
	p.ends(74)

	if said := p.stderr.String(); !strings.Contains(said, "lock lost") {
		t.Errorf("it says %q", said)
	}
}

// TestRunGrace: a program that ends within the grace isn't killed, and the exit code is still that of a loss.
func TestRunGrace(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	p := b.launch("run", "--ttl", "1s", "--grace", "1m", "x", "sh", "-c",
		`trap "sleep 0.3; echo cleaned up; exit 0" TERM; echo $PGLOCKER_TOKEN; while :; do sleep 0.1; done`)
	must(t, b.locker.ForceRelease(t.Context(), "x", p.token(), "a test"))
	p.says("cleaned up")
	p.ends(74)
}

// TestRunLeavesBehind: what the program leaves behind when it ends by itself runs on, and the lock is free.
func TestRunLeavesBehind(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	p := b.launch("run", "x", "sh", "-c", "sleep 1000 & echo $!")
	pid := p.line()
	p.ends(0)

	if !b.free("x") {
		t.Error("the lock is held")
	}

	if !alive(pid) {
		t.Error("it was killed")
	}

	must(t, syscall.Kill(atoi(t, pid), syscall.SIGKILL))
}

// TestRunReapsOrphans: the command is the parent of what the program has left, and leaves no zombies.
func TestRunReapsOrphans(t *testing.T) {
	t.Parallel()

	p := newBed(t).launch("run", "x", "sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.01 & echo $!); done; echo done; exec sleep 1000")

	var pids []string
	for pid := p.line(); pid != "done"; pid = p.line() {
		pids = append(pids, pid)
	}

	for _, pid := range pids {
		eventually(t, "the orphan "+pid+" is gone", func() bool { return syscall.Kill(atoi(t, pid), 0) != nil })
	}
}

func atoi(t *testing.T, text string) int {
	t.Helper()

	n, err := strconv.Atoi(text)
	must(t, err)

	return n
}
