package main

import (
	"context"
	"os"

	"github.com/spf13/cobra"
)

// app is one run of the command: what its subcommands share.
type app struct {
	stdin          *os.File
	stdout, stderr *os.File

	connection connection
	format     string
	verbose    bool

	// began: the command line was understood. Errors before that are mistakes of usage.
	began bool
}

// The groups of commands in the help.
const (
	groupRun  = "run"
	groupLook = "look"
	groupCare = "care"
)

// commands makes the subcommands, in the order of the documentation.
var commands = []func(*app) *cobra.Command{
	// groupRun
	newRun,
	newHold,
	newElect,

	// groupLook
	newLs,
	newShow,
	newHistory,
	newDoctor,
	newTop,
	newWeb,

	// groupCare
	newFree,
	newPrune,
	newMigrate,

	// the others
	newMan,
	newDocs,
	newVersion,
}

// newRoot returns the command with all subcommands.
func newRoot(a *app) *cobra.Command {
	root := &cobra.Command{
		Use:   "pglocker",
		Short: "Distributed locks on PostgreSQL",
		Long: `pglocker shows and cares for the locks of a PostgreSQL database, and runs programs
under them. The locks are those of the Go library github.com/ismurov/pglocker: rows of
a table, pglocker.lock_statuses unless --schema and --table name another.

` + connectionHelp,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if err := readEnvironment(cmd.Flags()); err != nil {
				return err
			}

			if err := a.checkFormat(); err != nil {
				return err
			}

			if err := cmd.ValidateRequiredFlags(); err != nil {
				return err
			}

			if err := cmd.ValidateFlagGroups(); err != nil {
				return err
			}

			a.began = true

			return nil
		},
	}

	root.AddGroup(
		&cobra.Group{ID: groupRun, Title: "Run under a lock:"},
		&cobra.Group{ID: groupLook, Title: "Look:"},
		&cobra.Group{ID: groupCare, Title: "Care:"},
	)

	flags := root.PersistentFlags()
	flags.SortFlags = false
	a.connection.addFlags(flags)
	flags.StringVarP(&a.format, "output", "o", formatText, "`format` of what is printed: text or json")
	flags.BoolVarP(&a.verbose, "verbose", "v", false, "tell on the standard error what is waited for and repeated")
	fromEnvironment(flags, "dsn", "schema", "table", "owner", "output", "verbose")

	for _, command := range commands {
		root.AddCommand(command(a))
	}

	cobra.EnableCommandSorting = false

	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)

	return root
}

// run runs a command line.
func (a *app) run(ctx context.Context, args []string) error {
	root := newRoot(a)
	root.SetArgs(args)

	cmd, err := root.ExecuteContextC(ctx)
	if err != nil && !a.began {
		return usageError{err, cmd.CommandPath()}
	}

	return err
}
