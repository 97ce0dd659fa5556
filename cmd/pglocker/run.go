package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/cmd/pglocker/internal/child"
)

const runHelp = `run takes a lock, runs a program while it keeps the lock alive, and releases the lock when
the program has ended. It exits as the program did.

-n, -w, -E, -s and -x are those of flock(1), with four differences: if another holds the lock, the
exit code is 75, not 1; without -s or -x it is a lock of a third kind, which keeps neither out; -o
is --output; and no shell runs the program, as by -c there: write sh -c '...'.

While another holds the lock, run waits, without -n or -w for as long as it takes. TERM, INT, HUP
and QUIT end the wait. Nothing is held then. If the database doesn't answer within the connect
timeout (taken as 5 seconds if it is less, as 30 if it is more), or until another signal comes, run
says what may stay held, and until when. A "--" stands before the program if there are several ids,
or if the program's own arguments contain "--".

--permits, --shared and --exclusive take a semaphore or a read-write lock. Those have nothing in
common with a lock of the same name.

The program finds in its environment

  PGLOCKER_LOCK_ID   the id, or the name of the semaphore or read-write lock
  PGLOCKER_TOKEN     the fencing token: a larger number with every grant. Give it to what the
                     program writes to, which refuses a smaller number than it has seen.
  PGLOCKER_SLOT      with --permits: the number of the permit, which no other holder has

With several ids it finds none of these but PGLOCKER_LOCKS, their number, and for each, in the
order of the command line, PGLOCKER_LOCK_ID_1, PGLOCKER_TOKEN_1 and so on.
` + childHelp + `

If the lock is lost, the program was not alone to the end, or may not have been: the exit code
is 74, whatever the program's was.`

// childHelp is about the program that run and elect start.
const childHelp = `
The program is a process group of its own, and has the terminal when it wants it. It gets the
signals TERM, INT, HUP, QUIT, USR1, USR2, WINCH, TSTP and CONT that pglocker gets. The first four
also continue it, if it is stopped. It is ended if it wants the terminal in the background of a
shell that has ended: nothing could continue it. On Linux, one that is stopped when its terminal
goes is continued, after HUP.

The lock is lost if no renewal of its lease is acknowledged in time, or if the database says that
it is gone. The program and all its descendants then get TERM, and KILL after --grace. "In time" is
the grace and one second before the lease ends; the second is a tenth of the TTL if that is less.
So all of them are dead before another can be granted the lock, if the grace is below half of the
TTL by more than a second: pglocker trusts its lease for half of the TTL at least. Two cases are
left, in which only the token protects what the program writes to:

  - The lock was released by force (pglocker free). The program gets TERM at the next renewal,
    after a third of the TTL.
  - pglocker was stopped for longer than its lease, by SIGSTOP or Ctrl-Z, or the machine was
    paused. The program gets TERM when pglocker goes on. Ctrl-Z stops the program too.

On Linux, descendants that left the process group are found too, and if pglocker is killed by
SIGKILL the program is killed with it. On other systems neither is so. What the program leaves
behind when it ends by itself runs on, without the lock.

Nothing kills the descendants of the program if pglocker itself is killed by SIGKILL, as by the
system when memory runs out: the system does that for children alone, and a process in between,
which could, would have to be started each time. They run on without the lock. Where that must not
be, have them end with pglocker: as a service of systemd, which kills all that is left of a service
(KillMode=control-group, the default), or in a container whose process 1 is pglocker.

A program that gains privileges when it starts (setuid, capabilities) isn't killed with
pglocker, and one of another user, as under sudo, may get no signal from it. What a
server starts on request, such as the container of docker run, is no descendant of the
program.`

type run struct {
	app                       *app
	noWait, shared, exclusive bool
	conflict, permits         int
	wait, minHold             days
	keep                      keeping
}

func newRun(a *app) *cobra.Command {
	r := &run{app: a, conflict: exitHeld}
	cmd := &cobra.Command{
		Use:   "run [flags] ID... [--] PROGRAM [ARGUMENT...]",
		Short: "Run a program while holding a lock",
		Long:  runHelp,
		Example: `  pglocker run nightly-report /usr/local/bin/report --full
  pglocker run -n -E 0 nightly-report report           # cron: another machine has it, fine
  pglocker run -w 5m account-7 account-9 -- transfer   # all of the locks, or none
  pglocker run --permits 3 importer import             # at most three at a time`,
		GroupID: groupRun,
		Args:    withProgram,
		RunE:    func(cmd *cobra.Command, args []string) error { return r.run(cmd, args) },
	}

	cmd.ValidArgsFunction = a.completeID

	flags := cmd.Flags()
	flags.SetInterspersed(false)
	flags.SortFlags = false
	flags.BoolVarP(&r.noWait, "no-wait", "n", false, "fail at once if another holds the lock")
	flags.VarP(waiting{&r.wait}, "wait", "w", "fail after `duration`, or a number of seconds, if another holds the lock")
	flags.IntVarP(&r.conflict, "conflict-exit-code", "E", exitHeld, "the exit `code` if another holds the lock; 0 also says nothing about it")
	r.keep.addFlags(flags)
	flags.Var(&r.minHold, "min-hold", "keep the lock for this `duration` at least, though the program has ended")
	flags.IntVar(&r.permits, "permits", 0, "take one of `n` permits of a semaphore instead of a lock")
	flags.BoolVarP(&r.shared, "shared", "s", false, "take read access to a read-write lock instead")
	flags.BoolVarP(&r.exclusive, "exclusive", "x", false, "take write access to a read-write lock instead")
	fromEnvironment(flags, "ttl", "grace")
	cmd.MarkFlagsMutuallyExclusive("no-wait", "wait")
	cmd.MarkFlagsMutuallyExclusive("permits", "shared", "exclusive")

	return cmd
}

// splitProgram splits the arguments at the first "--", or else after the first.
func splitProgram(args []string) (ids, program []string, err error) {
	dashes := slices.Index(args, "--")

	switch {
	case dashes > 0:
		ids, program = args[:dashes], args[dashes+1:]
	case len(args) > 0:
		ids, program = args[:1], args[1:]
	}

	if len(ids) == 0 || len(program) == 0 {
		return nil, nil, usagef("name a lock and a program to run")
	}

	if program[0] == "-c" { // as with flock
		return nil, nil, usagef("-c isn't for a shell here: write sh -c '...'")
	}

	return ids, program, nil
}

// withProgram checks the arguments of a command that runs a program.
func withProgram(_ *cobra.Command, args []string) error {
	_, _, err := splitProgram(args)

	return err
}

func (r *run) run(cmd *cobra.Command, args []string) error {
	ids, program, err := splitProgram(args)
	if err != nil {
		return err
	}

	if err := r.check(cmd, ids); err != nil {
		return err
	}

	command, err := r.keep.command(program)
	if err != nil {
		return err
	}

	command.Foreground = true
	supervisor := child.New()
	defer func() { go supervisor.Close() }() // the process needn't wait for it to end, as each signal is given back by turns

	return withCode(r.under(cmd.Context(), supervisor, ids, command))
}

func (r *run) check(cmd *cobra.Command, ids []string) error {
	r.noWait = r.noWait || cmd.Flags().Changed("wait") && r.wait == 0

	switch {
	case r.conflict < 0 || r.conflict > 255:
		return usagef("the exit code %d is not within 0 and 255", r.conflict)
	case cmd.Flags().Changed("permits") && r.permits < 1:
		return usagef("%d permits: there must be one at least", r.permits)
	case len(ids) > 1 && (r.permits > 0 || r.shared || r.exclusive):
		return usagef("--permits, --shared and --exclusive take one name, not %d", len(ids))
	}

	return nil
}

// under runs the command under the lock.
func (r *run) under(parent context.Context, supervisor *child.Supervisor, ids []string, command child.Command) error {
	ctx, again, stop := supervisor.Context(parent)
	defer stop()

	k, err := r.app.openKeeper(ctx, again, "run", r.keep)
	if err != nil {
		return err
	}

	supervisor.Caught()

	held, env, err := r.take(ctx, k, ids)
	if ctx.Err() != nil {
		r.interrupted(k, held, err, ids)

		return context.Cause(ctx)
	}

	defer closeAfter(k, supervisor)

	switch {
	case errors.Is(err, pglocker.ErrAlreadyLocked) && r.conflict == 0:
		return nil
	case errors.Is(err, pglocker.ErrAlreadyLocked):
		return codeError{r.conflict, err}
	case err != nil:
		return err
	}

	command.Env = environment(env)
	exit, err := supervisor.Run(held.Context(), command)
	lost := context.Cause(held.Context())

	ctx, _, stop = supervisor.Context(parent)
	defer stop()

	return r.verdict(exit, err, lost, held.Unlock(ctx))
}

// interrupted ends the command after a signal that came before the program ran. err is that of the request.
func (r *run) interrupted(k *keeper, held tenure, err error, ids []string) {
	if held != nil {
		ctx, cancel := k.lastly()
		err = held.Unlock(ctx) // what stays held is found

		cancel()

		if r.minHold > 0 && err == nil {
			fmt.Fprintf(r.app.stderr, "pglocker: %s stays locked for %s, by --min-hold\n", printable(strings.Join(ids, ", ")), spoken(time.Duration(r.minHold)))
		}
	}

	k.interrupted(r.rows(ids), inDoubt(err))
}

// rows are those that a request may be granted, see [keeper.interrupted].
func (r *run) rows(ids []string) []string {
	recipe := func(k pglocker.Kind) []string {
		return []string{pglocker.ReservedPrefix + string(k) + ":" + ids[0] + ":"}
	}

	switch {
	case r.permits > 0:
		return recipe(pglocker.KindSemaphore)
	case r.shared || r.exclusive:
		return recipe(pglocker.KindRWLock)
	}

	return ids
}

// verdict is what the command ends with: the program has ended so, or could not be started; lost is why the
// lock's context has ended, nil if it hasn't; released is what the release returned.
func (r *run) verdict(exit child.Exit, err, lost, released error) error {
	if errors.Is(released, pglocker.ErrLockLost) {
		lost = released
	}

	if lost == nil && released != nil {
		fmt.Fprintf(r.app.stderr, "%s\nThe lock is free when its lease ends, within %s.\n", r.app.explain(released), spoken(time.Duration(r.keep.ttl)))
	}

	switch {
	case lost != nil:
		return codeError{exitLost, errors.Join(lost, err)}
	case errors.Is(err, child.ErrNoTerminal):
		return codeError{cmp.Or(exit.Status(), exitFailed), err}
	case err != nil:
		return err
	}

	return exitWith(exit)
}

// tenure is what is held: a lock, several, a permit, or access to a read-write lock.
type tenure interface {
	Context() context.Context
	Unlock(ctx context.Context) error
}

// take takes what the flags say, and returns what the program's environment says of it. If that is nothing, the
// tenure is nil.
func (r *run) take(ctx context.Context, k *keeper, ids []string) (tenure, []string, error) {
	ctx, stop := k.outlast(ctx)
	defer stop()

	locker := k.locker
	ttl := time.Duration(r.keep.ttl)
	options := []pglocker.LockOption{pglocker.WithMinHold(time.Duration(r.minHold)), waitOption(r.noWait, r.wait)}

	if r.noWait { // though the row of a free lock may be locked by a transaction
		var cancel context.CancelFunc

		ctx, cancel = context.WithTimeout(ctx, max(ttl, r.app.connection.patience))
		defer cancel()
	}

	switch {
	case r.permits > 0:
		return takePermit(ctx, locker, ids[0], r.permits, ttl, options)
	case r.shared || r.exclusive:
		return takeAccess(ctx, locker, ids[0], r.shared, ttl, options)
	case len(ids) > 1:
		return takeAll(ctx, locker, ids, ttl, options)
	}

	lock, err := locker.TryLock(ctx, ids[0], ttl, options...)
	if err != nil {
		return nil, nil, err
	}

	return lock, variables(ids[0], lock.Token()), nil
}

// waitOption is how long to wait for a lock that another holds.
func waitOption(noWait bool, wait days) pglocker.LockOption {
	switch {
	case noWait:
		return nil
	case wait > 0:
		return pglocker.WithWait(time.Duration(wait))
	default:
		return pglocker.WithWait(pglocker.Forever)
	}
}

func takePermit(
	ctx context.Context, locker *pglocker.Locker, name string, permits int, ttl time.Duration, options []pglocker.LockOption,
) (tenure, []string, error) {
	semaphore, err := locker.NewSemaphore(name, permits)
	if err != nil {
		return nil, nil, err
	}

	permit, err := semaphore.TryAcquire(ctx, ttl, options...)
	if err != nil {
		return nil, nil, err
	}

	return permit, append(variables(name, permit.Token()), fmt.Sprintf("%s=%d", envSlot, permit.Slot())), nil
}

func takeAccess(
	ctx context.Context, locker *pglocker.Locker, name string, shared bool, ttl time.Duration, options []pglocker.LockOption,
) (tenure, []string, error) {
	rw, err := locker.NewRWLock(name)
	if err != nil {
		return nil, nil, err
	}

	try := rw.TryLock
	if shared {
		try = rw.TryRLock
	}

	access, err := try(ctx, ttl, options...)
	if err != nil {
		return nil, nil, err
	}

	return access, variables(name, access.Token()), nil
}

func takeAll(
	ctx context.Context, locker *pglocker.Locker, ids []string, ttl time.Duration, options []pglocker.LockOption,
) (tenure, []string, error) {
	locks, err := locker.TryLockAll(ctx, ids, ttl, options...)
	if err != nil {
		return nil, nil, err
	}

	env := []string{fmt.Sprintf("%s=%d", envLocks, len(ids))}
	for i, id := range ids {
		env = append(env, fmt.Sprintf("%s_%d=%s", envLockID, i+1, id), fmt.Sprintf("%s_%d=%d", envToken, i+1, locks.Tokens()[id]))
	}

	return locks, env, nil
}
