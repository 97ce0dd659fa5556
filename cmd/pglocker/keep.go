package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/cmd/pglocker/internal/child"
)

// keeping is how run and elect keep a lease while a program runs.
type keeping struct{ ttl, grace days }

func (k *keeping) addFlags(flags *pflag.FlagSet) {
	k.ttl, k.grace = days(30*time.Second), days(10*time.Second)
	flags.Var(&k.ttl, "ttl", "length of the lease as a `duration`: after a crash, others wait as long")
	flags.Var(&k.grace, "grace", "when the lock is lost: the `duration` between TERM and KILL")
}

// margin is how long before the end of the lease it isn't trusted any more: the grace, and what the library
// would take. It must be less than half of the TTL.
func (k *keeping) margin() time.Duration {
	ttl, grace := time.Duration(k.ttl), time.Duration(k.grace)
	usual := min(ttl/10, time.Second)

	return max(min(grace+usual, (ttl-1)/2), usual)
}

// command looks the program up, before anything is asked of the database.
func (k *keeping) command(program []string) (child.Command, error) {
	path, err := child.Find(program[0])

	return child.Command{Path: path, Args: program, Grace: time.Duration(k.grace)}, notStarted(err)
}

// openKeeper makes a keeper. One connection is enough for it while it holds a lock, since this process does
// nothing else with the database.
func (a *app) openKeeper(ctx, again context.Context, command string, k keeping) (*keeper, error) {
	return a.newKeeper(ctx, again, command, time.Duration(k.ttl), func(config *pglocker.Config, db *sql.DB) {
		config.SafetyMargin, config.RenewDB = k.margin(), db
	})
}

// closeAfter closes a keeper whose program has ended. It waits for what is under way, until a signal comes or the
// database hasn't answered for too long.
func closeAfter(k *keeper, supervisor *child.Supervisor) {
	ctx, _, stop := supervisor.Context(context.Background())
	defer stop()

	ctx, cancel := context.WithTimeout(ctx, k.app.connection.patience)
	defer cancel()

	_ = k.close(ctx)
}

// The variables of the program's environment.
const (
	envLockID = "PGLOCKER_LOCK_ID"
	envToken  = "PGLOCKER_TOKEN"
	envSlot   = "PGLOCKER_SLOT"
	envLocks  = "PGLOCKER_LOCKS"
)

func variables(id string, token int64) []string {
	return []string{envLockID + "=" + id, fmt.Sprintf("%s=%d", envToken, token)}
}

// environment is that of this process with other variables about locks: this process may itself run under
// another pglocker.
func environment(variables []string) []string {
	env := slices.DeleteFunc(os.Environ(), func(variable string) bool {
		for _, name := range []string{envLockID, envToken, envSlot, envLocks} {
			if strings.HasPrefix(variable, name+"=") || strings.HasPrefix(variable, name+"_") {
				return true
			}
		}

		return false
	})

	return append(env, variables...)
}

// exitWith ends the command as the program ended.
func exitWith(exit child.Exit) error {
	if exit.Status() == 0 {
		return nil
	}

	return codeError{code: exit.Status()}
}

// withCode gives errors of the supervision their exit codes.
func withCode(err error) error {
	if e, ok := errors.AsType[child.SignalError](err); ok {
		if e.Signal == syscall.SIGQUIT { // by which Go programs end in a way of their own
			return codeError{code: exitSignal + int(e.Signal)}
		}

		return signalError{e.Signal}
	}

	return notStarted(err)
}

// notStarted gives the error of a program that can't be started its exit code.
func notStarted(err error) error {
	switch {
	case errors.Is(err, child.ErrNotFound):
		return codeError{exitNotFound, err}
	case errors.Is(err, child.ErrNotExecutable):
		return codeError{exitNotExec, err}
	}

	return err
}
