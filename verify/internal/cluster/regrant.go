package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/audit"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// regrantBound is how much longer than a TTL a lock may take to be granted again when nothing is
// broken: a poll, and what a busy machine adds.
const regrantBound = time.Second

// Regrant takes every lock within the longest TTL and the bound, and records how that went. Where
// the database's clock was set back, leases last longer by as much.
func (c *Cluster) Regrant(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, traffic.MaxTTL+regrantBound+c.behind())
	defer cancel()

	tables := []*pglocker.Config{{Owner: "coordinator"}}
	if c.options.Engine == nil {
		tables = append(tables, &pglocker.Config{Owner: "coordinator", Scheme: audit.BareSchema, Table: audit.BareTable})
	}

	var (
		wait sync.WaitGroup
		errs = make([]error, len(tables))
	)

	for i, table := range tables {
		wait.Go(func() { errs[i] = c.regrantAll(ctx, limited, table) })
	}

	wait.Wait()

	return errors.Join(errs...)
}

// regrantAll takes every lock of one table.
func (c *Cluster) regrantAll(ctx, limited context.Context, table *pglocker.Config) error {
	locker, err := pglocker.New(c.Admin, table)
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}

	table.SetDefault()

	locks, err := c.locks(ctx, table.Scheme+"."+table.Table)
	if err != nil {
		return err
	}

	var wait sync.WaitGroup

	for _, id := range locks {
		// A request that is unanswered when its Locker is closed may leave its lease (G5).
		if traffic.IsLong(id) || strings.HasPrefix(id, pglocker.ReservedPrefix) {
			continue
		}

		wait.Go(func() {
			c.regrant(id, func() error {
				_, err := locker.Lock(limited, id, time.Minute)

				return err
			})
		})
	}

	if x := c.options.Extras; x.Recipes && (x.Bare || table.Table != audit.BareTable) {
		semaphores, rwLocks, elections := traffic.Semaphores, traffic.RWLocks, traffic.Elections
		if table.Table == audit.BareTable {
			semaphores, rwLocks, elections = traffic.BareSemaphores, traffic.BareRWLocks, nil
		}

		if x.Plain {
			semaphores, rwLocks = nil, nil
		}

		for id, take := range recipes(limited, locker, semaphores, rwLocks, elections) {
			wait.Go(func() { c.regrant(id, take) })
		}
	}

	wait.Wait()

	if err := locker.Close(ctx); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}

	return nil
}

// regrant takes one lock, and records whether that succeeded.
func (c *Cluster) regrant(id string, take func() error) {
	e := c.Notes.Invoke(history.Event{Kind: history.Grant, Lock: id})
	e.At, e.Outcome = 0, history.OK

	if err := take(); err != nil {
		e.Outcome, e.Detail = history.Refused, err.Error()
	}

	c.Notes.Return(e)
}

// recipes are the ways to be granted all of each recipe.
func recipes(ctx context.Context, locker *pglocker.Locker, semaphores, rwLocks, elections []traffic.Recipe) map[string]func() error {
	all := make(map[string]func() error)

	for _, r := range semaphores {
		all[r.ID()] = func() error {
			s, err := locker.NewSemaphore(r.Name, r.Most)
			if err != nil {
				return err
			}

			_, err = s.Acquire(ctx, time.Minute, pglocker.WithPermits(r.Most))

			return err
		}
	}

	for _, r := range rwLocks {
		all[r.ID()] = func() error {
			l, err := locker.NewRWLock(r.Name)
			if err != nil {
				return err
			}

			_, err = l.Lock(ctx, time.Minute)

			return err
		}
	}

	for _, r := range elections {
		all[r.ID()] = func() error { return lead(ctx, locker, r) }
	}

	return all
}

// lead is nil once it was elected.
func lead(ctx context.Context, locker *pglocker.Locker, r traffic.Recipe) error {
	election, err := locker.NewElection(r.Name, r.TTL)
	if err != nil {
		return err
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	led := false

	err = election.Run(ctx, func(context.Context, pglocker.Term) error {
		led = true

		cancel()

		return nil
	})
	if led {
		return nil
	}

	return err
}

func (c *Cluster) locks(ctx context.Context, table string) ([]string, error) {
	rows, err := c.Admin.QueryContext(ctx, `SELECT lock_id FROM `+table+` ORDER BY 1`)
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
