package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker/cmd/pglocker/internal/doctor"
)

func newDoctor(a *app) *cobra.Command {
	limits := doctor.DefaultLimits()
	cmd := &cobra.Command{
		Use:     "doctor",
		GroupID: groupLook,
		Short:   "Examine server, settings, role, table, connection and locks, and say what mends them",
		Long: `doctor examines what locks depend on: the server and its settings, the role and its
privileges, the table, the connection, replication, and the locks themselves. Each
finding says what was seen, what it means, and what mends it.

Run it as the role of your programs, over the connection that they use. It writes to no
table and needs no further privilege. What the role may not see is said. It sends one
notification on a channel of its own.

It exits with 0 if nothing is wrong, with 1 for warnings, and with 2 for errors. A
database that can't be reached is an error. The checks are

  connection     can it be reached, directly or through a pooler, in which mode
  server         version, primary or standby, read-only, isolation, encoding
  blockers       transactions that keep the table or rows of it locked
  engine         which one, what locks lack there, and the clocks of a cluster
  notifications  one notification is sent and must be heard
  table          columns, indexes, triggers, row-level security, partitions
  migrations     what migrate would do
  history        is it written
  privileges     what the role lacks, and for what
  storage        fillfactor and autovacuum
  bloat          dead rows, HOT updates, empty pages
  plans          statistics, and the plan of a look at one lock
  vacuum         old transactions, replication slots and prepared transactions
  timeouts       those of the role
  search_path    who may put functions in the way of PostgreSQL's
  durability     synchronous_commit and fsync
  replication    synchronous standbys that are missing
  timeline       of which fencing tokens are made
  connections    how many are left
  clock          the server's beside this machine's: offset and rate
  locks          held for long, not renewed, not released`,
		Example: `  pglocker doctor -d postgres://app@db1/shop
  pglocker doctor -o json | jq '.findings[].name'`,
		Args: cobra.NoArgs,
	}

	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var((*days)(&limits.LongHeld), "long-held", "a lock that is held for longer is a warning")
	flags.Var((*days)(&limits.Crashed), "crashed", "a lease that ended without a release within this time is a warning")
	fromEnvironment(flags, "long-held", "crashed")

	cmd.RunE = interruptible(func(ctx context.Context, _ []string) error { return a.doctor(ctx, limits) })

	return cmd
}

func (a *app) doctor(ctx context.Context, limits doctor.Limits) error {
	config, err := a.connection.parse("doctor")
	if err != nil {
		return err
	}

	report, err := doctor.Run(ctx, doctor.Config{Connect: config, Schema: a.connection.schema, Table: a.connection.table, Limits: limits})
	if err != nil {
		return err
	}

	if a.json() {
		err = a.printJSON(report)
	} else {
		err = report.WriteText(a.stdout, a.paintStatus())
	}

	if code := report.ExitCode(); err == nil && code > 0 {
		err = codeError{code, nil}
	}

	return err
}

// paintStatus is how a status is painted on the standard output.
func (a *app) paintStatus() doctor.Paint {
	colour := map[doctor.Status]string{doctor.OK: green, doctor.Warned: yellow, doctor.Failed: red, doctor.Skipped: faint}

	return func(s doctor.Status, text string) string {
		if !colours(a.stdout) {
			return text
		}

		return paint(colour[s], text)
	}
}
