//go:build !unix || aix || solaris

package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
)

// Supervisor runs commands, one at a time. On this system it has no process groups and forwards no signals:
// Ctrl-C reaches the command by the console.
type Supervisor struct{}

// New returns a Supervisor.
func New() *Supervisor { return &Supervisor{} }

// Caught does nothing.
func (*Supervisor) Caught() {}

// Close does nothing.
func (*Supervisor) Close() {}

// Terminal reports false.
func (*Supervisor) Terminal() bool { return false }

// Context returns a context that Ctrl-C ends with a [SignalError]. The next one ends the context again.
func (*Supervisor) Context(parent context.Context) (ctx, again context.Context, stop context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	again, cancelAgain := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt)

	go func() {
		for _, end := range []context.CancelCauseFunc{cancel, cancelAgain} {
			select {
			case <-signals:
				end(SignalError{syscall.SIGINT})
			case <-again.Done():
			}
		}
	}()

	return ctx, again, func() {
		signal.Stop(signals)
		cancel(nil)
		cancelAgain(nil)
	}
}

// OutliveHangup does nothing.
func (*Supervisor) OutliveHangup() {}

// Asked returns 0.
func (*Supervisor) Asked() syscall.Signal { return 0 }

// Run runs a command, and kills it when ctx ends. If ctx has ended before, Run returns its cause.
func (*Supervisor) Run(ctx context.Context, c Command) (Exit, error) {
	if ctx.Err() != nil {
		return Exit{}, context.Cause(ctx)
	}

	cmd := exec.CommandContext(ctx, c.Path)
	cmd.Args, cmd.Env = c.Args, c.Env
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr

	if err := cmd.Start(); err != nil {
		return Exit{}, fmt.Errorf("%w: %w", ErrNotExecutable, err)
	}

	err := cmd.Wait()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended && ctx.Err() == nil {
		return Exit{}, err
	}

	return Exit{Code: cmd.ProcessState.ExitCode()}, nil
}
