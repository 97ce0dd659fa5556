package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/history"
)

// fillDisk fills the server's disk, mostly for longer than leases last, again and again.
func fillDisk(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 100, 500)) {
		if err := fullDisk(ctx, c, r); err != nil {
			return err
		}
	}

	return nil
}

// fullDisk keeps the disk full for some time. Statements that make a file larger fail. In half of
// the cases the server has to begin a new file of its log. It can't, and crashes. It ends if the
// disk is still full while it recovers.
func fullDisk(ctx context.Context, c *cluster.Cluster, r *rand.Rand) (err error) {
	pause, switches, early := beyondTTL(r), r.IntN(2) == 0, between(r, 10, 400)
	if r.IntN(3) == 0 {
		pause = between(r, 100, 600)
	}

	stop := watchCrashes(c)
	defer stop()

	defer func() { err = errors.Join(err, c.Disk.Free(), startAgain(ctx, c)) }()

	full, cancel := context.WithTimeout(ctx, pause)
	defer cancel()

	if err := c.Disk.Fill(); err != nil {
		return err
	}

	c.Injected.Add(1)

	for began := time.Now(); ; {
		// The server gives some space back now and then.
		if err := c.Disk.Fill(); err != nil {
			return err
		}

		if switches && time.Since(began) > early {
			switches = false
			_, _ = c.Admin.ExecContext(full, `SELECT pg_switch_wal()`) // it may be down already
		}

		if !rest(full, 10*time.Millisecond) {
			return nil
		}
	}
}

// startAgain waits until the server answers, and starts it if it has ended.
func startAgain(ctx context.Context, c *cluster.Cluster) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recoverWithin)
	defer cancel()

	for {
		err := c.Admin.PingContext(ctx)
		if err == nil || ctx.Err() != nil {
			return err
		}

		if err := c.Server.Start(ctx); err != nil && !errors.Is(err, pgtesting.ErrServerUp) {
			return err
		}

		time.Sleep(5 * time.Millisecond)
	}
}

// watchCrashes records when the server crashes by itself, by a session that ends with it. It does
// so until stop is called, when the server runs again.
func watchCrashes(c *cluster.Cluster) (stop func()) {
	var (
		wait             sync.WaitGroup
		stopping         atomic.Bool
		watching, cancel = context.WithCancel(context.Background())
		alive, crashed   = history.Now(), false
	)

	// watch returns nil when there is no more to watch, and else that the session has ended.
	watch := func() error {
		witness, err := c.Admin.Conn(watching)
		if err != nil {
			return err
		}
		defer witness.Close()

		for ; ; time.Sleep(time.Millisecond) {
			now := history.Now()
			if err := witness.PingContext(watching); err != nil {
				return err
			}

			if crashed {
				c.Notes.Note(history.Event{Kind: history.Crash, From: alive})
			}

			alive, crashed = now, false

			if stopping.Load() {
				return nil
			}
		}
	}

	wait.Go(func() {
		for watch() != nil && watching.Err() == nil {
			crashed = true

			time.Sleep(time.Millisecond)
		}
	})

	return func() {
		stopping.Store(true)

		// A server that doesn't answer any more is no reason to wait for ever.
		impatient := time.AfterFunc(recoverWithin, cancel)
		wait.Wait()
		impatient.Stop()
		cancel()
	}
}
