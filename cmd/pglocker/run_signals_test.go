//go:build unix

package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
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

		if ends := slices.Contains([]string{"TERM", "INT", "HUP", "QUIT"}, name); ends {
			p.says("CONT")
		}
	}

	p.signal(syscall.SIGTSTP)
	eventually(t, "the program is stopped", func() bool { return state(t, pid) == "T" })
	p.signal(syscall.SIGCONT)
	p.says("CONT")

	p.signal(syscall.SIGKILL)
	p.silent()
}

// TestRunEndsStopped: a program that something has stopped, and never continues, ends by a signal to end.
func TestRunEndsStopped(t *testing.T) {
	t.Parallel()

	for name, signal := range map[string]syscall.Signal{"TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP} {
		b := newBed(t)
		p := b.launch("run", "x", "sh", "-c", "echo $$; exec sleep 1000")
		pid := p.line()
		process, err := strconv.Atoi(pid)
		must(t, err)
		must(t, syscall.Kill(process, syscall.SIGSTOP))
		eventually(t, "the program is stopped", func() bool { return state(t, pid) == "T" })

		p.signal(signal)
		p.ends(128 + int(signal))

		if !b.free("x") {
			t.Errorf("%s: the lock is held", name)
		}
	}
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
