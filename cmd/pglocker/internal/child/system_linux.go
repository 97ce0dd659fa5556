package child

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	getModes = unix.TCGETS
	setModes = unix.TCSETSW
)

// attributes are those of a command: a group of its own, and KILL when this process has ended. TERM would not
// do: nobody would be left to follow it up when the lease is over.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// adopt makes this process the parent of descendants whose parents have ended.
func adopt() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// signalAll sends signals to the command's group and to all descendants of this process.
func (r *running) signalAll(signals ...syscall.Signal) {
	targets := []int{-r.pid}

	for _, p := range descendants() {
		if p.group != r.pid {
			targets = append(targets, p.pid)
		}
	}

	for _, target := range targets {
		for _, sig := range signals {
			_ = unix.Kill(target, sig)
		}
	}
}

type process struct {
	pid, parent, group int
	stopped            bool
}

// isStopped reports whether a process was stopped and hasn't been continued.
func isStopped(pid int) bool {
	p, _ := readProcess(pid)

	return p.stopped
}

// descendants returns those of this process that have not ended.
func descendants() (found []process) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}

	children := make(map[int][]process)

	for _, entry := range entries {
		if pid, err := strconv.Atoi(entry.Name()); err == nil {
			if p, alive := readProcess(pid); alive {
				children[p.parent] = append(children[p.parent], p)
			}
		}
	}

	found = children[os.Getpid()]
	for i := 0; i < len(found); i++ {
		found = append(found, children[found[i].pid]...)
	}

	return found
}

func readProcess(pid int) (p process, alive bool) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return p, false
	}

	// pid (name) state ppid pgrp ...; the name may contain anything.
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) < 3 || fields[0][0] == 'Z' || fields[0][0] == 'X' {
		return p, false
	}

	p.pid, p.stopped = pid, fields[0][0] == 'T'
	p.parent, _ = strconv.Atoi(string(fields[1]))
	p.group, _ = strconv.Atoi(string(fields[2]))

	return p, true
}

// stopThisProcess stops this process as Ctrl-Z does, but by a signal that it doesn't catch: the system stops
// no process that no shell would continue. Where this process isn't a job of its own, as in a script, its
// whole group is stopped.
func stopThisProcess() {
	if syscall.Getpgrp() == os.Getpid() {
		// This thread is stopped at once; the signal to the process might come to another.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()

		_ = unix.Tgkill(os.Getpid(), unix.Gettid(), syscall.SIGTTIN)

		return
	}

	_ = unix.Kill(0, syscall.SIGTTIN)

	time.Sleep(notice) // another thread may get the signal
}
