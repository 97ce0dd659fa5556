package workload

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
	"github.com/ismurov/pglocker/bench/internal/server"
)

func Held(n int) string { return fmt.Sprintf("held=%d", n) }

// heldByAll is how many locks the others keep alive, too.
const heldByAll = 10_000

// KeepAlive is W4: locks are held and kept alive. Advisory locks are left out: each would
// need a connection.
func (b *Bench) KeepAlive(ctx context.Context) error {
	for _, n := range b.Plan.Held {
		contenders := b.only(contender.NamePglockerLock)
		if n == heldByAll {
			contenders = append(contenders, b.only(b.Plan.HeldAlso...)...)
		}

		for _, c := range contenders {
			key := result.Key{Workload: "W4", Params: Held(n), Contender: c.Name()}
			if err := b.keepMany(ctx, key, c, n); err != nil {
				return fmt.Errorf("%s: %w", c.Name(), err)
			}
		}
	}

	return nil
}

// keepMany is keepAlive with a table of its own for more locks than there are in pglocker's.
func (b *Bench) keepMany(ctx context.Context, key result.Key, c contender.Contender, locks int) error {
	if locks <= b.Plan.SmallTable {
		return b.keepAlive(ctx, key, c, locks)
	}

	return b.ownTable(ctx, "held", locks, func(table contender.Table) error {
		return b.keepAlive(ctx, key, &contender.Pglocker{Server: b.Postgres, Table: table, Watched: true}, locks)
	})
}

const (
	keepers = 64
	// settle is the time from the last grant to the measurement, which then has all
	// renewals of one third of the TTL.
	settle = 2 * time.Second
)

func (b *Bench) keepAlive(ctx context.Context, key result.Key, c contender.Contender, locks int) (err error) {
	// All connections are those of this client when no backend of another is left.
	if c.OnPostgres() {
		if _, err := b.Postgres.Counters(ctx); err != nil {
			return err
		}
	}

	var statements, renewals atomic.Int64

	client, err := c.Open(ctx, contender.Options{Pool: 16, Statements: func(string) { statements.Add(1) }})
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, client.Close()) }()

	keeper, ok := client.(contender.Keeper)
	if !ok {
		return errors.New("it can't keep locks")
	}

	kept, err := takeAll(ctx, keeper, locks)
	// The release fails if one of them was lost.
	defer func() { err = errors.Join(err, releaseAll(context.WithoutCancel(ctx), kept)) }()

	if err != nil {
		return err
	}

	if c, ok := client.(interface{ Rest(rest bool) }); ok {
		c.Rest(true)
		defer c.Rest(false)
	}

	renewing, stop := context.WithCancel(ctx)
	failed := make(chan error, 1)

	var renewer sync.WaitGroup

	renewer.Go(func() { failed <- renewEvenly(renewing, kept, &renewals) })

	defer func() {
		stop()
		renewer.Wait()
	}()

	if err := sleep(ctx, settle); err != nil {
		return err
	}

	var walBefore, walAfter int64

	if c.OnPostgres() {
		if walBefore, err = b.Postgres.WAL(ctx); err != nil {
			return err
		}
	}

	began, own := time.Now(), server.OwnCPU()
	serverBefore, hasCPU := c.CPU()
	sentBefore, renewedBefore := statements.Load(), renewals.Load()
	connections := 0

	for time.Since(began) < b.Plan.HeldFor {
		if err := sleep(ctx, b.Plan.HeldFor/10); err != nil {
			return err
		}

		n, err := b.connections(ctx, c, client)
		if err != nil {
			return err
		}

		connections = max(connections, n)
	}

	span := time.Since(began)
	perSecond := func(n float64) float64 { return n / span.Seconds() }
	serverAfter, _ := c.CPU()
	clientUsed := server.OwnCPU() - own

	// The statements that a client sends by itself are counted on PostgreSQL alone.
	sent := float64(renewals.Load() - renewedBefore)

	metrics := []result.Metric{{Unit: "connections", Value: float64(connections)}}

	if c.OnPostgres() {
		if walAfter, err = b.Postgres.WAL(ctx); err != nil {
			return err
		}

		sent = float64(statements.Load() - sentBefore)
		metrics = append(metrics, result.Metric{Unit: "WAL-B/s", Value: perSecond(float64(walAfter - walBefore))})
	}

	if sent > 0 {
		metrics = append(metrics, result.Metric{Unit: "statements/s", Value: perSecond(sent)})
	}

	if hasCPU {
		metrics = append(metrics,
			result.Metric{Unit: "client-core-%", Value: perSecond(clientUsed.Seconds()) * 100},
			result.Metric{Unit: "server-core-%", Value: perSecond((serverAfter - serverBefore).Seconds()) * 100})
	}

	stop()

	if err := <-failed; err != nil {
		return err
	}

	b.Log.Add(result.Round{Key: key, N: 1, Elapsed: span, Metrics: metrics})
	b.Say("%-58s %v", key, metrics)

	return nil
}

func takeAll(ctx context.Context, keeper contender.Keeper, locks int) ([]contender.Kept, error) {
	kept := make([]contender.Kept, locks)

	return kept, together(locks, func(i int) (err error) {
		kept[i], err = keeper.Keep(ctx, contender.ID(i))

		return err
	})
}

func releaseAll(ctx context.Context, kept []contender.Kept) error {
	return together(len(kept), func(i int) error {
		if kept[i].Release == nil {
			return nil
		}

		return kept[i].Release(ctx)
	})
}

func together(n int, f func(i int) error) error {
	var (
		group sync.WaitGroup
		errs  = make([]error, keepers)
	)

	for k := range keepers {
		group.Go(func() {
			for i := k; i < n && errs[k] == nil; i += keepers {
				errs[k] = f(i)
			}
		})
	}

	group.Wait()

	return errors.Join(errs...)
}

// renewEvenly renews each lock once in a third of the TTL, evenly spread, until ctx ends.
// It does nothing for clients that renew by themselves.
func renewEvenly(ctx context.Context, kept []contender.Kept, done *atomic.Int64) error {
	if kept[0].Renew == nil {
		return nil
	}

	const senders = 8

	var (
		group sync.WaitGroup
		due   = make(chan func(context.Context) error)
		errs  = make([]error, senders)
	)

	for s := range senders {
		group.Go(func() {
			for renew := range due {
				// The last ones count, so they aren't cancelled.
				if err := renew(context.WithoutCancel(ctx)); err != nil {
					errs[s] = err
				}

				done.Add(1)
			}
		})
	}

	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()

	began := time.Now()

	for next := 0; ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}

		passed := float64(time.Since(began)) / float64(contender.TTL/3)
		for ; next < int(passed*float64(len(kept))) && ctx.Err() == nil; next++ {
			due <- kept[next%len(kept)].Renew
		}
	}

	close(due)
	group.Wait()

	return errors.Join(errs...)
}

func (b *Bench) connections(ctx context.Context, c contender.Contender, client contender.Client) (int, error) {
	if c.OnPostgres() {
		return b.Postgres.Connections(ctx)
	}

	if c, ok := client.(interface{ Connections() int }); ok {
		return c.Connections(), nil
	}

	return 0, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
