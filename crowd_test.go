package pglocker_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestCrowd: where many processes wait for one lock, few of them ask when it is released.
func TestCrowd(t *testing.T) {
	t.Parallel()

	const (
		processes = 40
		hold      = 20 * time.Millisecond
		warmUp    = 4 * processes
		handOvers = processes
	)

	var (
		url         = contract.NewDatabase(t)
		ctx, cancel = context.WithCancel(t.Context())
		sent        atomic.Int64
		granted     atomic.Int64
		working     sync.WaitGroup
	)

	defer cancel()

	contract.Must(t, pglocker.MigrateDB(ctx, contract.Open(t, "pgx", url), &pglocker.Config{}))

	cfg, err := pgx.ParseConfig(url)
	contract.Must(t, err)

	cfg.Tracer = contract.OnStatement(func(context.Context) { sent.Add(1) })

	for range processes {
		db := stdlib.OpenDB(*cfg)
		db.SetMaxOpenConns(2)
		t.Cleanup(func() { contract.Must(t, db.Close()) })

		locker, err := pglocker.New(db, &pglocker.Config{})
		contract.Must(t, err)

		working.Go(func() {
			for ctx.Err() == nil {
				err := locker.Do(ctx, "a", time.Minute, 10*time.Second, func(context.Context) error {
					granted.Add(1)
					time.Sleep(hold)

					return nil
				}, pglocker.WithWait(pglocker.Forever))
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}

	after := func(n int64) (statements, grants int64) {
		contract.Await(t, "the lock goes round", func() bool { return granted.Load() >= n || t.Failed() })

		return sent.Load(), granted.Load()
	}

	sentBefore, grantedBefore := after(warmUp)
	sentAfter, grantedAfter := after(grantedBefore + handOvers)

	cancel()
	working.Wait()

	if each := float64(sentAfter-sentBefore) / float64(grantedAfter-grantedBefore); each > processes*2/3 {
		t.Errorf("%.1f statements for each hand-over among %d processes", each, processes)
	}
}
