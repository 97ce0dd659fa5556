package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
)

const holdHelp = `hold takes a lock for a maintenance window: nobody runs the job meanwhile. It waits for the
present holder, without -n or -w for as long as it takes.

The lock is held by a lease of that length, which nothing renews. So it stays held until then even
if hold is killed, the shell is closed, or this machine goes down. What ends it earlier:

  - Ctrl-C or TERM: hold releases the lock, and ends.
  - pglocker free, from anywhere. hold notices within five seconds, and its exit code is 74.

HUP, as when a shell is closed, ends hold and leaves the lock held. With --detach hold ends as
soon as it has the lock. Others see the owner as USER@HOST and the reason.`

// Times of hold.
const (
	// holdTTL is the lease between the grant and the lease of the window.
	holdTTL = 30 * time.Second
	// holdLook is how often hold looks whether the lock was freed.
	holdLook = 5 * time.Second
)

type hold struct {
	*keeper

	app            *app
	window, wait   days
	reason         string
	noWait, detach bool
}

// window is what `hold -o json` prints.
type window struct {
	ID    string    `json:"id"`
	Token int64     `json:"token"`
	Owner string    `json:"owner"`
	Until time.Time `json:"expires_at"`
}

func newHold(a *app) *cobra.Command {
	h := &hold{app: a}
	cmd := &cobra.Command{
		Use:     "hold ID --for DURATION --reason TEXT",
		Short:   "Hold a lock for a maintenance window",
		Long:    holdHelp,
		Example: `  pglocker hold nightly-report --for 2h --reason 'moving the archive'`,
		GroupID: groupRun,
		Args:    arguments(1, 1, "one ID"),
	}

	cmd.ValidArgsFunction = a.completeID

	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(&h.window, "for", "`duration` of the window: 2h, 1d12h")
	flags.StringVar(&h.reason, "reason", "", "why: the `text` that others see behind the owner's name")
	flags.BoolVarP(&h.noWait, "no-wait", "n", false, "fail at once if another holds the lock")
	flags.VarP(waiting{&h.wait}, "wait", "w", "fail after `duration`, or a number of seconds, if another holds the lock")
	flags.BoolVar(&h.detach, "detach", false, "end when the lock is held")
	cmd.MarkFlagsMutuallyExclusive("no-wait", "wait")
	_ = cmd.MarkFlagRequired("for")
	_ = cmd.MarkFlagRequired("reason")

	cmd.RunE = interruptibleTwice(func(ctx, again context.Context, args []string) error {
		h.noWait = h.noWait || flags.Changed("wait") && h.wait == 0

		return h.run(ctx, again, args[0])
	})

	return cmd
}

func (h *hold) run(ctx, again context.Context, id string) error {
	if h.window <= 0 || h.reason == "" {
		return usagef("--for needs a time above zero, and --reason a text")
	}

	// When the lease of the window replaces that of the grant, the library says that the latter is lost.
	var level slog.LevelVar

	level.Set(slog.LevelWarn)

	if h.app.verbose {
		level.Set(slog.LevelDebug)
	}

	var err error

	h.keeper, err = h.app.newKeeper(ctx, again, "hold", holdTTL, func(config *pglocker.Config, _ *sql.DB) {
		config.Owner, config.Logger = h.owner(), slog.New(newLines(h.app.stderr, &level))
	})
	if err != nil {
		return err
	}

	asking, stop := h.outlast(ctx)
	lock, err := h.locker.TryLock(asking, id, holdTTL, waitOption(h.noWait, h.wait))

	stop()

	if ctx.Err() != nil {
		if lock != nil {
			ending, cancel := h.lastly()
			defer cancel()

			err = lock.Unlock(ending) // what stays held is found
		}

		h.interrupted([]string{id}, inDoubt(err))

		return context.Cause(ctx)
	}

	defer func() {
		ending, cancel := h.lastly()
		defer cancel()

		_ = h.close(ending) // it holds nothing
	}()

	if err != nil {
		return err
	}

	level.Set(slog.LevelError + 1)

	status, err := h.begin(lock)
	if err != nil {
		return err
	}

	return h.keep(ctx, status)
}

// begin has the lease of the window replace that of the grant. If its reply doesn't come, the row says what
// became of it.
func (h *hold) begin(lock *pglocker.Lock) (*pglocker.LockStatus, error) {
	granted, until := lock.Status(), time.Now().Add(time.Duration(h.window))

	asking, cancel := h.lastly()
	defer cancel()

	status, err := h.locker.RefreshLock(asking, &granted, time.Duration(h.window))

	ctx, cancel := h.lastly()
	defer cancel()

	released := lock.Unlock(ctx)

	switch {
	case err == nil:
		return status, nil
	case released == nil: // and a request that is still on its way finds another token
		return nil, err
	case !errors.Is(err, pglocker.ErrUnknownOutcome):
		return nil, errors.Join(err, unless(released, pglocker.ErrLockLost))
	}

	status, unseen := h.locker.GetLockStatus(ctx, granted.LockID)
	if unseen == nil && status.Generation != granted.Generation {
		if status.Owner != "" && lockerOf(status.Owner) == lockerOf(granted.Owner) {
			return status, nil
		}

		if status.Owner != "" || granted.Owner != "" { // another's, or nobody's
			return nil, err
		}
	}

	id := printable(granted.LockID)
	text := fmt.Sprintf("%s\nWhether the window has begun isn't known. If it has, %s stays held until %s: `pglocker show %[2]s` says so, "+
		"and `pglocker free %[2]s` ends it.", err, id, utc(until))

	return nil, said{text, err}
}

// lockerOf is the part of an owner that is the same for all grants of one Locker.
func lockerOf(owner string) string { return owner[:max(strings.LastIndexByte(owner, '.'), 0)] }

// keep waits for the end of the window.
func (h *hold) keep(ctx context.Context, status *pglocker.LockStatus) error {
	end := time.NewTimer(time.Duration(h.window))
	defer end.Stop()

	look := time.NewTicker(holdLook)
	defer look.Stop()

	// A failed command holds nothing. Nor does one that a closed pipe ends, which it does only after the release.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	if err := h.print(status); err != nil {
		h.giveUp(status)
		signal.Reset(syscall.SIGPIPE)

		_ = h.print(status)

		return err
	}

	by, _ := errors.AsType[signalError](context.Cause(ctx)) // it may have come while the window began
	if h.detach && (ctx.Err() == nil || by.signal == syscall.SIGHUP) {
		return nil
	}

	for {
		select {
		case <-end.C:
			return unless(h.release(status), pglocker.ErrWrongGeneration)
		case <-ctx.Done():
			if by, ok := errors.AsType[signalError](context.Cause(ctx)); ok && by.signal == syscall.SIGHUP {
				return by
			}

			h.giveUp(status)

			return context.Cause(ctx)
		case <-look.C:
			// Trouble of the database is none of the window.
			now, err := h.locker.GetLockStatus(ctx, status.LockID)
			if errors.Is(err, pglocker.ErrLockNotFound) || err == nil && now.Generation != status.Generation {
				return codeError{exitLost, fmt.Errorf("another has ended the window of %q before its time", status.LockID)}
			}
		}
	}
}

// release ends the window.
func (h *hold) release(status *pglocker.LockStatus) error {
	ctx, cancel := h.lastly()
	defer cancel()

	return h.locker.ReleaseLock(ctx, status)
}

// giveUp ends the window before its time. If it can't, it says for how long the lock stays held: the command may end
// by a signal, and says nothing else then.
func (h *hold) giveUp(s *pglocker.LockStatus) {
	if err := unless(h.release(s), pglocker.ErrWrongGeneration); err != nil {
		fmt.Fprintf(h.app.stderr, "%s\n%s stays held until %s. Free it by `pglocker free %[2]s --token %[4]d`.\n",
			h.app.explain(err), printable(s.LockID), utc(s.ExpiresAt), s.Generation)
	}
}

func (h *hold) print(s *pglocker.LockStatus) error {
	if h.app.json() {
		return h.app.printJSON(window{ID: s.LockID, Token: s.Generation, Owner: s.Owner, Until: s.ExpiresAt})
	}

	_, err := fmt.Fprintf(h.app.stdout, "%s is held until %s, token %d.\n",
		printable(s.LockID), utc(s.ExpiresAt), s.Generation)

	return err
}

// owner is who holds the lock, and why.
func (h *hold) owner() string {
	name := h.app.connection.owner
	if name == "" {
		name = "unknown"
		if u, err := user.Current(); err == nil {
			name = u.Username
		}

		if host, err := os.Hostname(); err == nil {
			name += "@" + host
		}
	}

	return name + ": " + h.reason
}

// unless returns err, or nil if it matches other.
func unless(err, other error) error {
	if errors.Is(err, other) {
		return nil
	}

	return err
}
