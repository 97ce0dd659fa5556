//go:build linux

package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

const electionRow = pglocker.ReservedPrefix + "election:e"

// TestElect: one of two runs the program. When it is killed, the other one does, with a larger token. When the
// program ends, it runs again.
func TestElect(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	program := []string{"elect", "--ttl", "1s", "--grace", "100ms", "e", "sh", "-c", "echo $PGLOCKER_LOCK_ID; " + printing}
	first := b.launch(program...)
	first.says("e")
	token := first.token()

	second := b.launch(program...)
	b.waitedFor(electionRow)
	first.signal(syscall.SIGKILL)
	first.silent()
	second.says("e")

	if next := second.token(); next <= token {
		t.Errorf("the second leader has the token %d after %d", next, token)
	}

	second.signal(syscall.SIGTERM)
	second.silent()
	second.ends(143)

	if status := b.status(electionRow); status.Owner != "" {
		t.Errorf("%q still leads", status.Owner)
	}
}

func TestElectRunsAgain(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	p := b.launch("elect", "e", "sh", "-c", "echo $PGLOCKER_TOKEN; exit 3")
	first := p.token()

	if second := p.token(); second <= first {
		t.Errorf("the second term has the token %d after %d", second, first)
	}

	// It may be in a pause or the program may run.
	p.signal(syscall.SIGTERM)
	p.silent()
	<-p.exited

	if said := p.stderr.String(); !strings.Contains(said, "the program has ended with exit code 3") {
		t.Errorf("it says %q", said)
	}
}

// TestElectLosesTerm: the term is ended by force. The program and those that left its group are dead, and it
// runs again in the next term.
func TestElectLosesTerm(t *testing.T) {
	t.Parallel()
	needs(t, "setsid")

	b := newBed(t)
	p := b.launch("elect", "--ttl", "1s", "--grace", "100ms", "e", "sh", "-c", "setsid sleep 1000 & echo $!; "+printing)
	left := p.line()
	token := p.token()
	must(t, b.locker.ForceRelease(t.Context(), electionRow, token, "a test"))
	again := atoi(t, p.line())

	if next := p.token(); next <= token {
		t.Errorf("the next term has the token %d after %d", next, token)
	}

	if alive(left) {
		t.Error("a process of the first term is left")
	}

	must(t, syscall.Kill(again, syscall.SIGKILL))
}

// TestElectResigns: a leader that is asked to resign ends its program.
func TestElectResigns(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	p := b.launch("elect", "--ttl", "3s", "e", "sh", "-c", `trap "echo bye; exit" TERM; echo $PGLOCKER_TOKEN; while :; do sleep 0.05; done`)
	election, err := b.locker.NewElection("e", 3*time.Second)
	must(t, err)
	must(t, election.RequestResign(t.Context(), p.token()))
	p.says("bye")
	p.signal(syscall.SIGTERM)
	p.silent()
}

// TestElectWithoutAnswer: the database doesn't answer when the leader releases the leadership. elect says that it stays.
func TestElectWithoutAnswer(t *testing.T) {
	t.Parallel()

	b, v := throughValve(t, noReplies, "acquired_at = NULL")
	b.env = append(b.env, "PGCONNECT_TIMEOUT=5")
	p := b.launch("elect", "--ttl", "6s", "--grace", "100ms", "e", "sh", "-c", printing)
	p.token()
	p.signal(syscall.SIGTERM)
	v.closes(p)
	p.ends(143)

	if said := p.stderr.String(); !strings.Contains(said, "ends with its lease, within 6s") {
		t.Errorf("it says %q", said)
	}
}

// TestElectTermThenHangup: HUP takes nothing back from a TERM, as a service manager sends both.
func TestElectTermThenHangup(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	cmd := b.command("elect", "e", "sh", "-c",
		`trap "echo bye" TERM; trap "echo gone; exit" HUP; echo $PGLOCKER_TOKEN; while :; do sleep 0.05; done`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	p := startProcess(t, cmd)
	p.token()
	p.signal(syscall.SIGTERM)
	p.says("bye")
	p.signal(syscall.SIGHUP)
	p.says("gone")
	p.ends(143)
}

func TestElectCandidate(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	leader := b.launch("elect", "e", "sh", "-c", printing)
	leader.token()

	// Without a terminal, HUP is for the program alone.
	cmd := b.command("elect", "e", "echo", "leads")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	candidate := startProcess(t, cmd)
	b.waitedFor(electionRow)

	mark := b.waited(electionRow)

	candidate.signal(syscall.SIGHUP)
	eventually(t, "it goes on waiting", func() bool { return b.waited(electionRow) > mark })
	candidate.signal(syscall.SIGINT)
	candidate.ends(130)
	leader.signal(syscall.SIGTERM)
	leader.ends(143)

	b.fails(64, []string{"one name"}, "elect", "a", "b", "--", "true")
	b.fails(127, []string{"not found"}, "elect", "e", "no-such-program")
	b.fails(69, []string{"pglocker migrate"}, "elect", "--table", "none", "e", "true")
}

// TestElectHangup: HUP ends elect if it has a terminal, whether it leads or not, and leaves nothing held.
func TestElectHangup(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	program := []string{"elect", "e", "sh", "-c", `trap "echo go''ne; exit" HUP; echo lea''ds; while :; do sleep 0.05; done`}
	leader := onTerminal(t, b.command(program...))
	leader.shows(0, "leads")

	candidate := onTerminal(t, b.command(program...))
	b.waitedFor(electionRow)

	must(t, candidate.cmd.Process.Signal(syscall.SIGHUP))
	candidate.ends(129)

	must(t, leader.cmd.Process.Signal(syscall.SIGHUP))
	leader.shows(0, "gone")
	leader.ends(129)

	if held := b.heldRows(); len(held) > 0 {
		t.Errorf("%q are held", held)
	}
}
