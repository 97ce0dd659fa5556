package cluster

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// regrantBound is how much longer than a TTL a lock may take to be granted again when all
// is well: a poll, and what a busy machine adds.
const regrantBound = time.Second

// Regrant takes every lock that there is, within the longest TTL and the bound, and
// records how that went. Where the database's clock was set back, leases last so much
// longer.
func (c *Cluster) Regrant(ctx context.Context) error {
	locks, err := c.locks(ctx)
	if err != nil {
		return err
	}

	locker, err := pglocker.New(c.Admin, &pglocker.Config{Owner: "coordinator"})
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}

	limited, cancel := context.WithTimeout(ctx, traffic.MaxTTL+regrantBound+c.behind())
	defer cancel()

	var wait sync.WaitGroup

	for _, id := range locks {
		wait.Go(func() {
			e := c.Notes.Invoke(history.Event{Kind: history.Grant, Lock: id})
			e.At, e.Outcome = 0, history.OK

			if _, err := locker.Lock(limited, id, time.Minute); err != nil {
				e.Outcome, e.Detail = history.Refused, err.Error()
			}

			c.Notes.Return(e)
		})
	}

	wait.Wait()

	if err := locker.Close(ctx); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}

	return nil
}

func (c *Cluster) locks(ctx context.Context) ([]string, error) {
	rows, err := c.Admin.QueryContext(ctx, `SELECT lock_id FROM pglocker.lock_statuses ORDER BY 1`)
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	defer rows.Close()

	var locks []string

	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("cluster: %w", err)
		}

		locks = append(locks, id)
	}

	return locks, rows.Err()
}
