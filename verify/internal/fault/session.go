package fault

import (
	"context"
	"database/sql"
	"math/rand/v2"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/history"
)

// backends are the processes of the clients' sessions. Their order doesn't change by itself, so
// that the same draw draws the same ones.
func backends(ctx context.Context, c *cluster.Cluster) ([]int64, error) {
	return column[int64](ctx, c, `SELECT pid FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE 'c%.%'
		ORDER BY application_name, backend_start, pid`)
}

// column reads a result of one column.
func column[T any](ctx context.Context, c *cluster.Cluster, query string) (all []T, err error) {
	rows, err := c.Admin.QueryContext(ctx, query)
	if err != nil {
		return nil, err
	}
	defer rows.Close()

	for rows.Next() {
		var one T
		if err := rows.Scan(&one); err != nil {
			return nil, err
		}

		all = append(all, one)
	}

	return all, rows.Err()
}

// some draws each of the elements with that chance.
func some[T any](r *rand.Rand, chance float64, all []T) []T {
	drawn := []T{} // none of them is no NULL

	for _, one := range all {
		if r.Float64() < chance {
			drawn = append(drawn, one)
		}
	}

	return drawn
}

// sessions calls a function of the server on about a third of the clients' sessions, again and
// again. A session counts if the function took effect: if it returned true, and the session was in
// one of the states, if there are any.
func sessions(function string, states ...string) func(context.Context, *cluster.Cluster, *rand.Rand) error {
	// OFFSET keeps the conditions from being evaluated first.
	query := `SELECT count(*) FROM (SELECT state, ` + function + `(pid) AS done FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE 'c%.%' AND pid = ANY ($1) OFFSET 0) AS s
		WHERE done AND (state = ANY ($2) OR $2 = '{}')`

	return func(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
		for rest(ctx, between(r, 5, 120)) {
			// It may be down for another fault's sake; then there is nothing to end.
			pids, err := backends(ctx, c)
			if err != nil {
				continue
			}

			var done int64
			if c.Admin.QueryRowContext(ctx, query, some(r, 0.3, pids), append([]string{}, states...)).Scan(&done) == nil {
				c.Injected.Add(done)
			}
		}

		return nil
	}
}

// lockRows is an outsider's transaction that locks half of the table's rows, briefly or for longer
// than leases last.
func lockRows(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	pause := func(r *rand.Rand) time.Duration {
		if r.IntN(3) == 0 {
			return beyondTTL(r)
		}

		return between(r, 20, 400)
	}

	return holdRows(ctx, c, r, pause, "UPDATE", "NO KEY UPDATE", "SHARE", "KEY SHARE")
}

// holdRows locks half of the table's rows again and again, in one of the strengths.
func holdRows(ctx context.Context, c *cluster.Cluster, r *rand.Rand, pause func(*rand.Rand) time.Duration, strength ...string) error {
	for rest(ctx, between(r, 20, 200)) {
		pause := pause(r)
		how := strength[r.IntN(len(strength))]

		ids, err := column[string](ctx, c, `SELECT lock_id FROM pglocker.lock_statuses ORDER BY lock_id`)
		if err != nil {
			continue // it may be down for another fault's sake
		}

		ids = some(r, 0.5, ids)
		locked := history.Event{Kind: history.RowsLocked, From: history.Now()}

		inTransaction(ctx, c, sql.LevelDefault, func(tx *sql.Tx) {
			done, err := tx.ExecContext(ctx, `SELECT FROM pglocker.lock_statuses
				WHERE lock_id = ANY ($1) ORDER BY lock_id FOR `+how, ids)
			if err != nil {
				return
			}

			if n, err := done.RowsAffected(); err != nil || n == 0 {
				return
			}

			c.Injected.Add(1)
			rest(ctx, pause)
		})

		c.Notes.Note(locked)
	}

	return nil
}

// oldTransaction is a transaction that sees the table as it was, and so keeps every old version of
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

// inTransaction runs what it can. Another fault may have the server down.
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
		if err := c.Pooler.Restart(); err != nil {
			return err
		}

		c.Injected.Add(1)
	}

	return nil
}
