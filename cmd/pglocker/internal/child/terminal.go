//go:build unix && !aix && !solaris

package child

import (
	"errors"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// terminal is the controlling terminal. A nil one does nothing.
type terminal struct {
	fd int
	// own is this process's group.
	own int
	// modes are those at the beginning, nil if they aren't known.
	modes *unix.Termios
}

// openTerminal returns nil if there is no controlling terminal.
func openTerminal() *terminal {
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}

	modes, err := unix.IoctlGetTermios(fd, getModes)
	if err != nil {
		modes = nil
	}

	return &terminal{fd: fd, own: syscall.Getpgrp(), modes: modes}
}

func (t *terminal) close() {
	if t != nil {
		_ = unix.Close(t.fd)
	}
}

// whole reports whether standard input and output are terminals: this process isn't part of a pipeline, whose
// other programs may want the terminal too.
func (t *terminal) whole() bool {
	_, in := unix.IoctlGetTermios(0, getModes)
	_, out := unix.IoctlGetTermios(1, getModes)

	return t != nil && in == nil && out == nil
}

// give makes a group the foreground, if this process's group is. It reports whether the group is now.
func (t *terminal) give(group int) bool {
	if t == nil {
		return false
	}

	now, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)

	return err == nil && (now == group || now == t.own && t.set(group))
}

// terminalLook is how often a stopped command's terminal is looked at.
const terminalLook = time.Second

// gone reports whether the terminal that was there is no more.
func (t *terminal) gone() bool {
	if t == nil {
		return false
	}

	_, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)

	return err != nil
}

func (t *terminal) set(group int) bool {
	return unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, group) == nil
}

// takeBack makes this process's group the foreground again, if a group that was given the terminal is, or one
// that has ended. A program that was killed may leave the terminal in modes of its own: reset puts those of
// the beginning back.
func (t *terminal) takeBack(group int, reset bool) {
	if t == nil {
		return
	}

	now, err := unix.IoctlGetInt(t.fd, unix.TIOCGPGRP)
	if err != nil || now != group && !errors.Is(unix.Kill(-now, 0), unix.ESRCH) {
		return
	}

	if t.set(t.own) && reset && t.modes != nil {
		_ = unix.IoctlSetTermios(t.fd, setModes, t.modes)
	}
}
