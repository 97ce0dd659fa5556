package workload

import (
	"context"
	"fmt"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
)

const churnLocks = 1000

// Churn is W6: many pairs on a thousand locks, with no vacuum but that of the table's
// settings. It is about pglocker's table, and for pglocker alone.
func (b *Bench) Churn(ctx context.Context) error {
	table, err := contender.NewTable(ctx, b.Postgres.URL(), "churn", churnLocks)
	if err != nil {
		return err
	}

	before, err := b.Postgres.TableSize(ctx, string(table))
	if err != nil {
		return err
	}

	c := &contender.Pglocker{Server: b.Postgres, Table: table}

	s, _, err := b.once(ctx, c, b.options(c, churnLocks), load{
		goroutines: churnLocks,
		slice:      time.Hour,
		lock:       ownLock,
		enough:     int64(b.Plan.ChurnPairs),
	})
	if err != nil {
		return err
	}

	after, err := b.Postgres.TableSize(ctx, string(table))
	if err != nil {
		return err
	}

	hot, err := b.Postgres.HotShare(ctx, string(table))
	if err != nil {
		return err
	}

	if err := b.Postgres.Exec(ctx, "VACUUM FULL public."+string(table)); err != nil {
		return err
	}

	smallest, err := b.Postgres.TableSize(ctx, string(table))
	if err != nil {
		return err
	}

	metrics := []result.Metric{
		{Unit: "pairs/s", Value: float64(s.pairs) / s.elapsed.Seconds()},
		{Unit: "bytes-before", Value: float64(before)},
		{Unit: "bytes-after", Value: float64(after)},
		{Unit: "bytes-smallest", Value: float64(smallest)},
		{Unit: "HOT-%", Value: hot * 100},
	}
	key := result.Key{Workload: "W6", Params: Churned(b.Plan.ChurnPairs), Contender: c.Name()}
	b.Log.Add(result.Round{Key: key, N: s.pairs, Elapsed: s.elapsed, Metrics: metrics})
	b.Say("%-58s %10.0f pairs/s   %d, after it %d, at best %d bytes   %.2f %% HOT",
		key, metrics[0].Value, before, after, smallest, hot*100)

	return nil
}

func Churned(pairs int) string { return fmt.Sprintf("pairs=%d", pairs) }
