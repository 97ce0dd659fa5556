//go:build unix && !aix && !solaris

package child

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that a command gets.
var forwarded = []os.Signal{
	syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGCONT,
}

// notice is how long a process that was stopped gives the context of the lock to end.
const notice = 50 * time.Millisecond

// catch has the signals come to the Supervisor, but for those that are ignored.
func (s *Supervisor) catch() {
	for _, sig := range forwarded {
		if !signal.Ignored(sig) {
			signal.Notify(s.signals, sig)
		}
	}

	// A reader of this process's messages that has ended must not end the command.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	close(s.caught)

	for sig := range s.signals {
		s.signal(sig.(syscall.Signal)) //nolint:forcetypeassert // every signal of a Unix system is one
	}
}

// signal does with a signal what there is to do.
func (s *Supervisor) signal(sig syscall.Signal) {
	s.mu.Lock()

	r := s.now

	switch {
	case r == nil && ends(sig) && !(sig == syscall.SIGHUP && s.outlivesHangup):
		if s.idle.Err() != nil {
			s.cancelAgain(SignalError{sig})
		}

		s.cancel(SignalError{sig})
	case r != nil && ends(sig) && (sig != syscall.SIGHUP || s.asked == 0): // HUP says less than the others
		s.asked = sig
	}

	s.mu.Unlock()

	if sig == syscall.SIGCONT {
		select {
		case s.continued <- struct{}{}:
		default:
		}
	}

	switch {
	case r == nil && sig == syscall.SIGTSTP:
		stopThisProcess()
	case r == nil:
	case sig == syscall.SIGCONT:
		s.resume(r)
	default:
		_ = unix.Kill(-r.pid, sig)

		if ends(sig) { // what was stopped ends when it goes on
			_ = unix.Kill(-r.pid, syscall.SIGCONT)
		}
	}
}

// ends reports whether a signal asks a process to end.
func ends(sig syscall.Signal) bool {
	return sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGHUP || sig == syscall.SIGQUIT
}

// stopped does what is to be done when the command has stopped. What stopped it by SIGSTOP will continue it.
// Without a terminal that holds for every stop. The error is [ErrNoTerminal].
func (s *Supervisor) stopped(r *running, sig syscall.Signal) error {
	switch {
	case s.terminal == nil:
	case sig == syscall.SIGTSTP:
		stopThisProcess()
		s.resume(r) // also where no shell would have continued this process, and the system didn't stop it
	case sig != syscall.SIGTTIN && sig != syscall.SIGTTOU:
	case s.terminal.give(r.pid):
		_ = unix.Kill(-r.pid, syscall.SIGCONT)
	default: // it wants the terminal, and the job is in the background
		return s.stopUntilContinued(r)
	}

	return nil
}

// stopUntilContinued stops this process. It returns [ErrNoTerminal] if the system hasn't stopped it, since no shell
// would continue it: then nothing would continue the command either.
func (s *Supervisor) stopUntilContinued(r *running) error {
	select {
	case <-s.continued: // before
	default:
	}

	stopThisProcess()

	for range patience / notice { // the time of a late stop counts once
		select {
		case <-s.continued:
			return nil
		case <-r.ctx.Done():
			return nil
		case <-time.After(notice):
		}
	}

	return ErrNoTerminal
}

// resume continues the command after this process was continued, unless the lease has ended meanwhile.
func (s *Supervisor) resume(r *running) {
	select {
	case <-r.ctx.Done():
		return
	case <-time.After(notice):
	}

	s.terminal.give(r.pid)
	_ = unix.Kill(-r.pid, syscall.SIGCONT)
}
