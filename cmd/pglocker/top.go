package main

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/cmd/pglocker/internal/top"
)

// topCommand is what `top` was asked for.
type topCommand struct {
	*app
	interval time.Duration
	rows     int
	// lines: --interval was given.
	lines bool
}

func newTop(a *app) *cobra.Command {
	t := &topCommand{app: a}
	cmd := &cobra.Command{
		Use:     "top",
		GroupID: groupLook,
		Short:   "Watch the locks: held, waited for, elections, semaphores, read-write locks",
		Long: `top watches the locks on a terminal: which are held and waited for, who leads the elections,
how full the semaphores are, who reads and who writes. Press ? for the keys. It frees a lock
if you ask it to, for a reason that you give. It reconnects by itself, and says since when the
data is stale.

Without a terminal, or with -o json, it prints one snapshot and ends. With --interval it then
prints a line for each look.

A table may have millions of rows. If a look takes long, a pause of ten times as long follows,
and top says how old the data is.`,
		Args: cobra.NoArgs,
	}

	flags := cmd.Flags()
	flags.SortFlags = false
	flags.DurationVar(&t.interval, "interval", time.Second, "`time` between two looks; without a terminal: print a line for each")
	flags.IntVar(&t.rows, "rows", 1000, "how many rows are kept; the others are counted")

	cmd.RunE = interruptible(func(ctx context.Context, _ []string) error {
		t.lines = flags.Changed("interval")

		return t.run(ctx)
	})

	return cmd
}

// shortestInterval keeps top from being a load.
const shortestInterval = 100 * time.Millisecond

func (t *topCommand) run(ctx context.Context) error {
	if t.interval < shortestInterval {
		return usagef("invalid --interval %s: it is at least %s", t.interval, shortestInterval)
	}

	if t.rows < 1 {
		return usagef("invalid --rows %d: it is at least 1", t.rows)
	}

	db, err := t.open(ctx, "top")
	if err != nil {
		return err
	}
	defer db.Close()

	// The library's log would be in the way of the view. What it would tell, the view shows.
	locker, err := pglocker.New(db, t.connection.config(nil))
	if err != nil {
		return err
	}

	if _, err := locker.HasOwners(ctx); err != nil { // no table, say
		return err
	}

	table, query := topTable{locker, db, t.who()}, top.Query{Limit: t.rows}

	switch {
	case !t.json() && terminal(t.stdin) && terminal(t.stdout) && os.Getenv("TERM") != "dumb":
		title, err := t.title()
		if err != nil {
			return err
		}

		return top.Run(ctx, table, top.Options{Title: title, Interval: t.interval, Query: query})
	case t.lines:
		var object func(any) error
		if t.json() {
			object = t.printJSON
		}

		return top.Lines(ctx, t.stdout, table, query, t.interval, object, func(err error) {
			fmt.Fprintln(t.stderr, t.explain(err))
		})
	}

	snapshot, err := top.NewLooker(table).Look(ctx, query)

	switch {
	case err != nil:
		return err
	case t.json():
		return t.printJSON(snapshot)
	}

	return top.Print(t.stdout, snapshot)
}

// title names the table, the database and the server.
func (t *topCommand) title() (string, error) {
	config, err := t.connection.parse("top")
	if err != nil {
		return "", err
	}

	host := config.Host
	if filepath.IsAbs(host) {
		host = "local socket"
	}

	return fmt.Sprintf("%s.%s · %s @ %s", t.connection.schema, t.connection.table, config.Database, host), nil
}

// topTable is the table that top looks at.
type topTable struct {
	*pglocker.Locker
	db  *sql.DB
	who string
}

// ForceRelease says in the history who did it.
func (t topTable) ForceRelease(ctx context.Context, lockID string, token int64, reason string) error {
	return t.Locker.ForceRelease(ctx, lockID, token, reason+" (by "+t.who+")")
}

// Clock asks a standby, too.
func (t topTable) Clock(ctx context.Context) (time.Time, bool, error) {
	s, err := serverNow(ctx, t.db)

	return s.clock(), s.standby, err
}
