package fault

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
)

// sessions calls a function of the server on about a third of the clients' sessions, again
// and again.
func sessions(function string) func(context.Context, *cluster.Cluster, *rand.Rand) error {
	return func(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
		for rest(ctx, between(r, 5, 120)) {
			// It may be down for another fault's sake; then there is nothing to end.
			done, err := c.Admin.ExecContext(ctx, `SELECT `+function+`(pid) FROM pg_stat_activity
				WHERE datname = current_database() AND application_name LIKE 'c%.%' AND random() < 0.3`)
			if err != nil {
				continue
			}

			if n, err := done.RowsAffected(); err == nil {
				c.Injected.Add(n)
			}
		}

		return nil
	}
}

// lockRows is an outsider's transaction that has rows of the table locked, for a moment or
// for longer than leases last.
func lockRows(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	strength := []string{"UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE"}

	for rest(ctx, between(r, 20, 200)) {
		pause := between(r, 20, 400)
		if r.IntN(3) == 0 {
			pause = beyondTTL(r)
		}

		inTransaction(ctx, c, sql.LevelDefault, func(tx *sql.Tx) {
			c.Injected.Add(1)

			_, _ = tx.ExecContext(ctx, `SELECT FROM pglocker.lock_statuses
				WHERE random() < 0.5 ORDER BY lock_id FOR `+strength[r.IntN(len(strength))])

			rest(ctx, pause)
		})
	}

	return nil
}

// oldTransaction is one that sees the table as it was, and so keeps every old version of
// its rows from being removed.
func oldTransaction(ctx context.Context, c *cluster.Cluster, _ *rand.Rand) error {
	for rest(ctx, 0) {
		inTransaction(ctx, c, sql.LevelRepeatableRead, func(tx *sql.Tx) {
			_, err := tx.ExecContext(ctx, `SELECT count(*) FROM pglocker.lock_statuses`)
			if err != nil {
				return
			}

			c.Injected.Add(1)

			// Another one begins where a crash or a failover has ended it.
			for err == nil && rest(ctx, 50*time.Millisecond) {
				_, err = tx.ExecContext(ctx, `SELECT`)
			}
		})
	}

	return nil
}

// inTransaction runs what it can: the server may be down for another fault's sake.
func inTransaction(ctx context.Context, c *cluster.Cluster, level sql.IsolationLevel, run func(*sql.Tx)) {
	tx, err := c.Admin.BeginTx(ctx, &sql.TxOptions{Isolation: level})
	if err != nil {
		rest(ctx, 10*time.Millisecond)

		return
	}

	run(tx)

	_ = tx.Rollback() // by the end of ctx, or here
}

// restartPooler kills the pooler and starts it again.
func restartPooler(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 300, 900)) {
		c.Injected.Add(1)

		if err := c.Pooler.Restart(); err != nil {
			return err
		}
	}

	return nil
}
