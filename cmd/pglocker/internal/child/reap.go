//go:build unix && !aix && !solaris

package child

import (
	"errors"

	"golang.org/x/sys/unix"
)

// reap makes sure that a goroutine waits for the children of this process: the command, and what it has
// adopted. The caller holds mu.
func (s *Supervisor) reap() {
	if s.childless != nil {
		return
	}

	s.childless = make(chan struct{})

	go func() {
		for s.reapOne() {
		}
	}()
}

// reapOne waits until a child ends, or the command stops. It returns false if there is no child left.
func (s *Supervisor) reapOne() bool {
	var status unix.WaitStatus

	pid, err := wait(&status, 0)

	s.mu.Lock()

	if err != nil { // unless a command was started since
		if pid, err = wait(&status, unix.WNOHANG); err != nil {
			close(s.childless)
			s.childless = nil
		}
	}

	r := s.now
	s.mu.Unlock()

	if r != nil && pid == r.pid {
		select {
		case r.events <- status:
		case <-r.over:
		}
	}

	return err == nil
}

func wait(status *unix.WaitStatus, options int) (pid int, err error) {
	for {
		pid, err = unix.Wait4(-1, status, unix.WUNTRACED|options, nil)
		if !errors.Is(err, unix.EINTR) {
			return pid, err
		}
	}
}
