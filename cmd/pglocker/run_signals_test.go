//go:build unix

package main

import (
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

const sigTerm = syscall.SIGTERM

// signalNames are the signals that a program gets, but for TSTP and CONT.
var signalNames = map[string]syscall.Signal{
	"TERM": syscall.SIGTERM, "INT": syscall.SIGINT, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT,
	"USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2, "WINCH": syscall.SIGWINCH,
}

// echoing is a program that says which signals it gets.
const echoing = `
for s in TERM INT HUP QUIT USR1 USR2 WINCH CONT; do trap "echo $s" $s; done
echo $$
while :; do sleep 0.05 & wait; done`

func TestRunForwardsSignals(t *testing.T) {
	t.Parallel()

	p := newBed(t).launch("run", "x", "sh", "-c", echoing)
	pid := p.line()

	for name, signal := range signalNames {
		p.signal(signal)
		p.says(name)
	}

	p.signal(syscall.SIGTSTP)
	eventually(t, "the program is stopped", func() bool { return state(t, pid) == "T" })
	p.signal(syscall.SIGCONT)
	p.says("CONT")

	p.signal(syscall.SIGKILL)
	p.silent()
}

// state is the letter of a process's state in /proc.
func state(t *testing.T, pid string) string {
	t.Helper()

	text, err := os.ReadFile("/proc/" + pid + "/stat")
	must(t, err)

	_, rest, _ := strings.Cut(string(text), ") ")

	return rest[:1]
}

// TestRunSignalsWhileItWaits: those that end a process end the wait. Nothing is held then, and the program
// doesn't run. The others do nothing.
func TestRunSignalsWhileItWaits(t *testing.T) {
	t.Parallel()

	for name, signal := range signalNames {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := newBed(t)
			lock := b.hold("x")
			p := b.launch("run", "x", "echo", "runs")
			b.waitedFor("x")
			mark := b.waited("x")

			p.signal(signal)

			if signal == syscall.SIGUSR1 || signal == syscall.SIGUSR2 || signal == syscall.SIGWINCH {
				eventually(t, "it goes on waiting", func() bool { return b.waited("x") > mark })
				must(t, lock.Unlock(t.Context()))
				p.says("runs")
				p.ends(0)

				return
			}

			p.ends(128 + int(signal))
			must(t, lock.Unlock(t.Context()))
			p.silent()

			if !b.free("x") {
				t.Error("the lock is held")
			}
		})
	}
}

// TestRunStopsWhileItWaits: a command that was stopped while it waited goes on when it is continued.
func TestRunStopsWhileItWaits(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	lock := b.hold("x")
	p := b.launch("run", "x", "echo", "runs")
	b.waitedFor("x")
	p.signal(syscall.SIGSTOP)
	must(t, lock.Unlock(t.Context()))
	p.signal(syscall.SIGCONT)
	p.says("runs")
	p.ends(0)
}

// TestRunKeepsIgnored: HUP that is ignored, as under nohup, stays so.
func TestRunKeepsIgnored(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	inner := b.command("run", "x", "sh", "-c", "echo ready; read line; echo $line")
	cmd := b.command("")
	cmd.Path, cmd.Args = "/bin/sh", append([]string{"sh", "-c", `trap "" HUP; exec "$@"`, "sh"}, inner.Args...)

	input, err := cmd.StdinPipe()
	must(t, err)

	p := startProcess(t, cmd)
	p.says("ready")
	p.signal(syscall.SIGHUP)

	_, err = input.Write([]byte("goes on\n"))
	must(t, err)
	p.says("goes on")
	p.ends(0)
}

// TestRunInterruptedAtAnyMoment: whenever Ctrl-C comes, nothing is held when the command has ended, and no
// program is left.
func TestRunInterruptedAtAnyMoment(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	rounds := 60
	if testing.Short() {
		rounds = 20
	}

	began := time.Now()
	b.ok("run", "x", "true")

	longest := 2 * time.Since(began)
	outcomes := make(map[int]int)

	for range rounds {
		p := b.launch("run", "x", "sleep", "0.01")
		time.Sleep(rand.N(longest)) // the moment is what the test is about

		_ = p.cmd.Process.Signal(syscall.SIGINT) // it may have ended
		p.silent()
		<-p.exited
		outcomes[exitStatus(p.cmd.ProcessState)]++

		switch {
		case b.free("x"):
		case strings.Contains(p.stderr.String(), "was not returned"):
			// On a machine that is busy enough, no connection can be opened within a second. It says so.
			eventually(t, "the lease has ended", func() bool { return b.free("x") })
		default:
			t.Fatalf("the lock is held after exit code %d\n%s", exitStatus(p.cmd.ProcessState), p.stderr)
		}
	}

	t.Logf("exit codes, and how often: %v", outcomes)

	for code := range outcomes {
		if code != 0 && code != 130 {
			t.Errorf("exit code %d", code)
		}
	}
}
