package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
)

// migrated is what `migrate` prints with -o json.
type migrated struct {
	Schema  string `json:"schema"`
	Table   string `json:"table"`
	History bool   `json:"history"`
	// Distributed: the table is on several servers of a Citus cluster.
	Distributed bool `json:"distributed"`
}

// migrating is what `migrate` was asked for.
type migrating struct {
	*app
	history, distributed, print bool
	tool, number, dir           string
}

func newMigrate(a *app) *cobra.Command {
	m := &migrating{app: a}
	cmd := &cobra.Command{
		Use:     "migrate",
		GroupID: groupCare,
		Short:   "Make the table of the locks, or complete an older one",
		Long: `migrate makes the schema, the table and the functions for other languages, or adds what an
older table lacks. Rows stay as they are. Where everything is in place it changes nothing, and
needs no right to. Any number of processes may run it at once. While another transaction keeps
the table locked, it tries again until you interrupt it.

With --distributed it also distributes the table by lock id over the servers of a Citus
cluster. Run that on the coordinator. Such a table has no functions and no history, and
docs/distributed.md says what else it lacks.

With --print it connects to no database, and prints the SQL for a migration tool instead, up
and down:

  plain           the files of the folder migrations of the library, for psql
  goose           one file for each migration, with the markers of goose
  golang-migrate  NUMBER_NAME.up.sql and NUMBER_NAME.down.sql
  tern            one file for each migration, up above the line and down below it
  atlas           NUMBER_NAME.sql; run ` + "`atlas migrate hash`" + ` afterwards. Atlas plans the way down

These have the default names of the schema and the table. For other names let migrate make
them. To run the way down is to start the tokens of all locks again.`,
		Example: `  pglocker migrate --history
  pglocker migrate --print --tool goose --dir db/migrations
  pglocker migrate --print | psql -1 -v ON_ERROR_STOP=1`,
		Args: arguments(0, 0, "no arguments"),
	}

	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVar(&m.history, "history", false, "also the table of the history, and the triggers that write it")
	flags.BoolVar(&m.distributed, "distributed", false, "distribute the table over the servers of a Citus cluster")
	flags.BoolVar(&m.print, "print", false, "print the SQL, and connect to no database")
	flags.StringVar(&m.tool, "tool", "plain", "for which migration `tool`: plain, goose, golang-migrate, tern or atlas")
	flags.StringVar(&m.number, "number", "", "`number` of the first file (default: the time; for tern, the next in --dir)")
	flags.StringVar(&m.dir, "dir", "", "write the files into this `folder` instead of printing them")

	cmd.RunE = interruptible(func(ctx context.Context, _ []string) error {
		if m.distributed && (m.history || m.print) {
			return usagef("--distributed goes with neither --history nor --print")
		}

		if m.print {
			return m.printFiles()
		}

		for _, name := range []string{"tool", "number", "dir"} {
			if cmd.Flags().Changed(name) {
				return usagef("--%s needs --print", name)
			}
		}

		return m.migrate(ctx)
	})

	return cmd
}

func (m *migrating) migrate(ctx context.Context) error {
	db, err := m.open(ctx, "migrate")
	if err != nil {
		return err
	}
	defer db.Close()

	// What it waits for, and why there are no functions, is told in any case.
	log := slog.New(newLines(m.stderr, slog.LevelInfo))
	config := m.connection.config(log)
	config.Distributed = m.distributed

	if err := pglocker.MigrateDB(ctx, db, config); err != nil {
		return err
	}

	if m.history {
		if err := pglocker.MigrateHistory(ctx, db, config); err != nil {
			return err
		}
	}

	done := migrated{Schema: m.connection.schema, Table: m.connection.table, History: m.history, Distributed: m.distributed}
	if m.json() {
		return m.printJSON(done)
	}

	text := fmt.Sprintf("the table %q in the schema %q is in place", done.Table, done.Schema)
	if m.history {
		text += ", and its history"
	}

	if m.distributed {
		text += ", distributed by Citus"
	}

	_, err = fmt.Fprintln(m.stdout, text)

	return err
}

// printFiles prints or writes the files for a migration tool.
func (m *migrating) printFiles() error {
	if m.connection.schema != pglocker.DefaultScheme || m.connection.table != pglocker.DefaultTable {
		return usagef("--print knows the default names of the schema and the table only: for others, run `pglocker migrate`")
	}

	files, err := m.files()
	if err != nil {
		return err
	}

	if m.dir != "" {
		return m.write(files)
	}

	if m.json() {
		return m.printJSON(files)
	}

	for _, f := range files {
		if _, err := fmt.Fprintf(m.stdout, "-- file: %s\n%s\n", f.Name, f.Text); err != nil {
			return err
		}
	}

	return nil
}

// write makes the files in the folder. It overwrites none.
func (m *migrating) write(files []sqlFile) error {
	for _, f := range files {
		path := filepath.Join(m.dir, f.Name)
		if _, err := os.Stat(path); err == nil {
			return fmt.Errorf("%s is there: nothing was written", path)
		}
	}

	var written []string

	for _, f := range files {
		path := filepath.Join(m.dir, f.Name)

		to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}

		_, err = to.WriteString(f.Text)
		if err = errors.Join(err, to.Close()); err != nil {
			return err
		}

		written = append(written, path)
	}

	if m.json() {
		return m.printJSON(written)
	}

	for _, path := range written {
		if _, err := fmt.Fprintln(m.stdout, path); err != nil {
			return err
		}
	}

	return nil
}
