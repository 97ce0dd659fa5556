//go:build unix && !linux && !aix && !solaris

package child

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// attributes are those of a command: a group of its own.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func adopt() {}

// isStopped isn't known.
func isStopped(int) bool { return false }

// signalAll sends signals to the command's group.
func (r *running) signalAll(signals ...syscall.Signal) {
	for _, sig := range signals {
		_ = unix.Kill(-r.pid, sig)
	}
}

// stopThisProcess is as on Linux, but may return before the process has stopped.
func stopThisProcess() {
	group := 0
	if syscall.Getpgrp() == unix.Getpid() {
		group = unix.Getpid()
	}

	_ = unix.Kill(group, syscall.SIGTTIN)

	time.Sleep(notice)
}
