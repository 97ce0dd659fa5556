//go:build unix && !aix && !solaris

package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Supervisor runs commands, one at a time. A process has one.
type Supervisor struct {
	signals chan os.Signal
	caught  chan struct{} // see [Supervisor.Caught]
	// continued is told of a CONT.
	continued chan struct{}
	terminal  *terminal
	// forks runs functions on a thread that lasts as long as the Supervisor: the system takes the end of the
	// thread that has started a command for the end of this process.
	forks chan func()

	// mu guards the rest. It is held while a command is started.
	mu sync.Mutex
	// now is the command that runs, nil if none does.
	now *running
	// idle is the context of [Supervisor.Context], and cancel ends it. cancelAgain ends the other one.
	idle                context.Context
	cancel, cancelAgain context.CancelCauseFunc
	// outlivesHangup: HUP ends no context.
	outlivesHangup bool
	// asked is the last signal to end that a command got, 0 if none did.
	asked syscall.Signal
	// childless is closed when this process has no child left, nil while no goroutine waits for children.
	childless chan struct{}
}

// running is a command that was started.
type running struct {
	Command
	ctx context.Context
	// pid is that of the command and of its group.
	pid int
	// events are its stops and its end.
	events chan unix.WaitStatus
	// childless is as that of the Supervisor.
	childless chan struct{}
	// over is closed when Run doesn't take events any more.
	over chan struct{}
}

// New begins to take over the signals of this process.
func New() *Supervisor {
	s := &Supervisor{
		signals:   make(chan os.Signal, 64),
		caught:    make(chan struct{}),
		continued: make(chan struct{}, 1),
		terminal:  openTerminal(),
		forks:     make(chan func()),
		idle:      context.Background(),

		cancel: func(error) {}, cancelAgain: func(error) {},
	}

	go func() {
		runtime.LockOSThread() // and never unlock it

		for f := range s.forks {
			f()
		}
	}()

	go s.catch()
	adopt()

	return s
}

// Caught returns when New has taken over the signals. Before that, each does to this process what it does to others.
// Go hands each of them to another thread, and waits for that, which takes milliseconds on a busy machine.
func (s *Supervisor) Caught() { <-s.caught }

// Close gives the signals back. No command may be running.
func (s *Supervisor) Close() {
	s.Caught()
	signal.Stop(s.signals)
	close(s.signals)
	close(s.forks)
	s.terminal.close()
}

// Terminal reports whether this process has a controlling terminal.
func (s *Supervisor) Terminal() bool { return s.terminal != nil }

// Context returns a context that TERM, INT, HUP or QUIT ends with a [SignalError], if it comes while no
// command runs. The next of them ends the context again. They replace earlier ones, which no signal ends any more.
func (s *Supervisor) Context(parent context.Context) (ctx, again context.Context, stop context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	again, cancelAgain := context.WithCancelCause(parent)

	s.mu.Lock()
	defer s.mu.Unlock()

	s.idle, s.cancel, s.cancelAgain = ctx, cancel, cancelAgain

	return ctx, again, func() {
		cancel(nil)
		cancelAgain(nil)
	}
}

// OutliveHangup has HUP end no context from now on.
func (s *Supervisor) OutliveHangup() {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.outlivesHangup = true
}

// Asked returns the last signal to end that a command got, 0 if none did: the command may have ended by it
// or by itself.
func (s *Supervisor) Asked() syscall.Signal {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.asked
}

// Run runs a command. It returns when the command has ended; if ctx has ended too, when all its descendants
// have. If ctx or the Supervisor's context has ended before, Run returns its cause. A command that KILL doesn't end is
// left behind after the grace, but five seconds at least, with an error. One that waits for a terminal that it can't
// have is ended too: [ErrNoTerminal].
func (s *Supervisor) Run(ctx context.Context, c Command) (Exit, error) {
	r, err := s.start(ctx, c)
	if err != nil {
		return Exit{}, err
	}

	exit, err := s.watch(r)
	close(r.over)

	s.mu.Lock()
	s.now = nil
	s.mu.Unlock()

	s.terminal.takeBack(r.pid, exit.Signal != 0)

	return exit, err
}

func (s *Supervisor) start(ctx context.Context, c Command) (*running, error) {
	s.Caught()

	s.mu.Lock()
	defer s.mu.Unlock()

	for _, over := range []context.Context{ctx, s.idle} { // a signal may have come since the caller looked
		if over.Err() != nil {
			return nil, context.Cause(over)
		}
	}

	r := &running{Command: c, ctx: ctx, events: make(chan unix.WaitStatus), over: make(chan struct{})}

	if err := s.fork(r); err != nil {
		return nil, err
	}

	s.now = r
	s.reap()
	r.childless = s.childless

	if c.Foreground && s.terminal.whole() {
		s.terminal.give(r.pid)
	}

	return r, nil
}

// fork starts the command.
func (s *Supervisor) fork(r *running) (err error) {
	done := make(chan struct{})

	s.forks <- func() {
		defer close(done)

		// This process ignores SIGTTOU, or it would be stopped when it takes the terminal back or says
		// something. A command would inherit that, but not a handler.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGTTOU)
		defer signal.Ignore(syscall.SIGTTOU)

		attr := &syscall.ProcAttr{Env: r.Env, Files: []uintptr{0, 1, 2}, Sys: attributes()}

		r.pid, err = syscall.ForkExec(r.Path, r.Args, attr)
		if errors.Is(err, syscall.ENOEXEC) { // a script without a first line that names its shell
			r.pid, err = syscall.ForkExec("/bin/sh", append([]string{"sh", r.Path}, r.Args[1:]...), attr)
		}
	}

	<-done

	if errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("%w: %s: %w", ErrNotFound, r.Path, err)
	} else if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrNotExecutable, r.Path, err)
	}

	return nil
}

// watch returns how the command ended.
func (s *Supervisor) watch(r *running) (Exit, error) {
	var look <-chan time.Time // at the terminal, from the first stop on

	for {
		select {
		case <-r.ctx.Done():
			return s.end(r, nil)
		case <-look:
			if s.terminal.gone() {
				look = nil // until it stops again

				r.hangUp()
			}
		case status := <-r.events:
			switch {
			case !ended(status):
				if err := s.stopped(r, status.StopSignal()); err != nil {
					exit, left := s.end(r, nil)

					return exit, errors.Join(err, left)
				}

				look = time.Tick(terminalLook)
			case r.ctx.Err() != nil:
				return s.end(r, &status)
			default:
				return exitOf(status), nil
			}
		}
	}
}

// hangUp ends the command if it is stopped, as the system does with a stopped job that loses its shell, but not with the
// job's children. One that was continued may outlive its terminal, as after bg and disown.
func (r *running) hangUp() {
	if isStopped(r.pid) {
		_ = unix.Kill(-r.pid, syscall.SIGHUP)
		_ = unix.Kill(-r.pid, syscall.SIGCONT)
	}
}

// ended reports whether a command has ended rather than stopped. On BSD, Stopped is false of a stop by SIGSTOP.
func ended(status unix.WaitStatus) bool { return status.Exited() || status.Signaled() }

func exitOf(status unix.WaitStatus) Exit {
	if status.Signaled() {
		return Exit{Signal: status.Signal()}
	}

	return Exit{Code: status.ExitStatus()}
}
