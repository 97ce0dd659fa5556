package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
)

// pruned is what `prune` prints with -o json.
type pruned struct {
	DryRun bool `json:"dry_run"`
	// Locks is how many rows were removed, or would be.
	Locks int64 `json:"locks"`
	// Events is how many events of the history were removed, null without --history.
	Events *int64 `json:"events"`
}

// pruning is what `prune` was asked for.
type pruning struct {
	*app
	idle, history days
	dryRun        bool
}

func newPrune(a *app) *cobra.Command {
	p := &pruning{app: a}
	cmd := &cobra.Command{
		Use:     "prune --idle TIME",
		GroupID: groupCare,
		Short:   "Delete the rows of locks that have long been free",
		Long: `prune deletes the rows of locks and elections that have been free for --idle or longer and
that no program waits for. A pruned lock is as good as before: the next request makes it
again, and its tokens go on growing. Choose a time that is longer than any process may be
paused, a day at least. The role needs DELETE on the table.

The first prune of a table waits for the transactions that are open in the database. Ctrl-C
ends it at any time; what was deleted until then stays deleted.

With --history it also deletes the events of the history that are older.`,
		Example: `  pglocker prune --idle 90d --dry-run
  pglocker prune --idle 90d --history 365d`,
		Args: arguments(0, 0, "no arguments"),
	}

	flags := cmd.Flags()
	flags.SortFlags = false
	flags.Var(&p.idle, "idle", "how long a lock must have been free: 90d, 36h")
	flags.Var(&p.history, "history", "delete older events of the history too: 365d")
	flags.BoolVar(&p.dryRun, "dry-run", false, "only count the locks")

	if err := cmd.MarkFlagRequired("idle"); err != nil {
		panic(err) // there is no such flag
	}

	cmd.MarkFlagsMutuallyExclusive("dry-run", "history")

	cmd.RunE = interruptible(func(ctx context.Context, _ []string) error {
		return p.prune(ctx, cmd.Flags().Changed("history"))
	})

	return cmd
}

func (p *pruning) prune(ctx context.Context, history bool) error {
	s, err := p.look(ctx, "prune")
	if err != nil {
		return err
	}
	defer s.close()

	result := pruned{DryRun: p.dryRun}

	if p.dryRun {
		result.Locks, err = p.count(ctx, s)
	} else {
		result.Locks, err = s.locker.Prune(ctx, time.Duration(p.idle))
	}

	if err == nil && history {
		result.Events = new(int64)
		*result.Events, err = s.locker.PruneHistory(ctx, time.Duration(p.history))
	}

	if err != nil {
		return err
	}

	if p.json() {
		return p.printJSON(result)
	}

	text := fmt.Sprintf("deleted %d locks", result.Locks)
	if p.dryRun {
		text = fmt.Sprintf("would delete %d locks", result.Locks)
	}

	if result.Events != nil {
		text += fmt.Sprintf(" and %d events", *result.Events)
	}

	_, err = fmt.Fprintln(p.stdout, text)

	return err
}

// sqlPrunable counts the rows of locks and elections that have been free since $1. The server counts: a large table
// would take minutes to send.
const sqlPrunable = `
SELECT pg_catalog.count(*)
  FROM %s AS l
 WHERE l.expires_at OPERATOR(pg_catalog.<=) $1::timestamp with time zone
   AND (NOT pg_catalog.starts_with(l.lock_id::pg_catalog.text, $2::pg_catalog.text)
        OR pg_catalog.starts_with(l.lock_id::pg_catalog.text, $3::pg_catalog.text))`

// count counts what Prune would delete, but for rows with a waiter and rows that a foreign key refers to.
func (p *pruning) count(ctx context.Context, s *sight) (n int64, err error) {
	if p.idle <= 0 {
		return 0, usagef("--idle needs a time above zero")
	}

	query := fmt.Sprintf(sqlPrunable, pgx.Identifier{p.connection.schema, p.connection.table}.Sanitize())
	elections := pglocker.ReservedPrefix + string(pglocker.KindElection) + ":"
	err = s.db.QueryRowContext(ctx, query, pgx.QueryExecModeExec,
		s.clock().Add(-time.Duration(p.idle)), pglocker.ReservedPrefix, elections).Scan(&n)

	return n, err
}
