package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
)

// completions bounds how many ids the shell is offered, and completeTime how long it waits for them.
const (
	completions  = 100
	completeTime = 2 * time.Second
)

// completeID offers the shell the ids that begin with what was typed.
func (a *app) completeID(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 || readEnvironment(cmd.Flags()) != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}

	ctx, cancel := context.WithTimeout(context.Background(), completeTime)
	defer cancel()

	locker, _, closeAll, err := a.openLocker(ctx, "completion")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	defer closeAll()

	var ids []string

	for status, err := range locker.Locks(ctx, pglocker.LocksFilter{Prefix: typed}) {
		if err != nil || len(ids) == completions {
			break
		}

		if !inner(status.LockID) && printable(status.LockID) == status.LockID { // the shell shows them as they are
			ids = append(ids, status.LockID)
		}
	}

	return ids, cobra.ShellCompDirectiveNoFileComp
}
