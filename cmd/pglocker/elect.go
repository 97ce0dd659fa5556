package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/cmd/pglocker/internal/child"
)

const electHelp = `elect takes part in an election among all that run it under the same name. The leader runs
the program. If the program ends, for whatever reason, the leader resigns, and takes part again
after a pause of 0.25 to 15 seconds, longer each time. If the leader crashes, another one leads
when its lease has ended.

The program finds the election's name in PGLOCKER_LOCK_ID and the fencing token of the term in
PGLOCKER_TOKEN.

elect ends by TERM, INT and QUIT: after the program, if it runs, and otherwise at once. HUP is for
the program alone, unless elect has a terminal, which may be gone. elect also ends if the database
can't be reached when it begins, or refuses for good, as without a privilege. While the database
is away later, elect waits for it.
` + childHelp

type elect struct {
	app  *app
	keep keeping
}

func newElect(a *app) *cobra.Command {
	e := &elect{app: a}
	cmd := &cobra.Command{
		Use:     "elect [flags] NAME [--] PROGRAM [ARGUMENT...]",
		Short:   "Run a program on the leader only",
		Long:    electHelp,
		Example: `  pglocker elect billing-scheduler /usr/local/bin/scheduler --port 8080`,
		GroupID: groupRun,
		Args:    withProgram,
		RunE:    func(cmd *cobra.Command, args []string) error { return e.run(cmd.Context(), args) },
	}

	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.SortFlags = false
	e.keep.addFlags(flags)
	fromEnvironment(flags, "ttl", "grace")

	return cmd
}

func (e *elect) run(ctx context.Context, args []string) error {
	names, program, err := splitProgram(args)
	if err != nil {
		return err
	}

	if len(names) > 1 {
		return usagef("an election has one name, not %d", len(names))
	}

	command, err := e.keep.command(program)
	if err != nil {
		return err
	}

	supervisor := child.New()
	defer supervisor.Close()

	if !supervisor.Terminal() {
		supervisor.OutliveHangup()
	}

	return withCode(e.campaign(ctx, supervisor, names[0], command))
}

// campaign takes part in the election until a signal ends it.
func (e *elect) campaign(parent context.Context, supervisor *child.Supervisor, name string, command child.Command) error {
	signalled, again, stop := supervisor.Context(parent)
	defer stop()

	k, err := e.app.openKeeper(signalled, again, "elect", e.keep)
	if err != nil {
		return err
	}

	supervisor.Caught()

	var ran error

	defer func() {
		if signalled.Err() != nil {
			k.interrupted([]string{pglocker.ReservedPrefix + string(pglocker.KindElection) + ":" + name}, inDoubt(ran))
		} else {
			closeAfter(k, supervisor)
		}
	}()

	election, err := k.locker.NewElection(name, time.Duration(e.keep.ttl))
	if err != nil {
		return err
	}

	ctx, end := context.WithCancelCause(signalled)
	defer end(nil)

	running, stop := k.outlast(ctx)
	defer stop()

	ran = election.Run(running, func(leading context.Context, term pglocker.Term) error {
		command.Env = environment(variables(name, term.Token))

		exit, err := supervisor.Run(leading, command)
		if signal := endedBy(supervisor, exit); signal != 0 {
			end(child.SignalError{Signal: signal})
		}

		return leave(leading, exit, err, end)
	})

	if cause, ok := errors.AsType[child.SignalError](context.Cause(ctx)); ok {
		if errors.Is(ran, pglocker.ErrNotReleased) && signalled.Err() == nil { // or interrupted says it
			fmt.Fprintf(e.app.stderr, "pglocker: the database hasn't said whether the leadership was released.\n"+
				"It ends with its lease, within %s.\n", spoken(time.Duration(e.keep.ttl)))
		}

		return cause
	}

	// The library's error names its method.
	err = said{strings.TrimSuffix(ran.Error(), fmt.Sprintf(" (run %q)", name)) + fmt.Sprintf(" (election %q)", name), ran}

	return errors.Join(notStarted(context.Cause(ctx)), err)
}

// endedBy is the signal that asks elect to end, 0 if there is none. Ctrl-C in a terminal that the program was
// given reaches only the program. HUP is for elect only where it has a terminal.
func endedBy(supervisor *child.Supervisor, exit child.Exit) syscall.Signal {
	asked := supervisor.Asked()

	switch {
	case asked == syscall.SIGTERM || asked == syscall.SIGINT || asked == syscall.SIGQUIT:
		return asked
	case asked == syscall.SIGHUP && supervisor.Terminal():
		return asked
	case exit.Signal == syscall.SIGINT || exit.Signal == syscall.SIGQUIT:
		return exit.Signal
	}

	return 0
}

// leave is what the leader's function returns. A program that can't be started here ends elect: another
// candidate may be able to.
func leave(leading context.Context, exit child.Exit, err error, end context.CancelCauseFunc) error {
	switch {
	case errors.Is(err, child.ErrNotFound) || errors.Is(err, child.ErrNotExecutable):
		end(err)

		return err
	case err != nil || leading.Err() != nil:
		return err
	case exit.Status() != 0:
		return fmt.Errorf("the program has ended with exit code %d", exit.Status())
	}

	return nil
}
