package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/history"
)

// freezeServer halts all processes of the server, mostly for longer than leases last.
func freezeServer(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 100, 500)) {
		if err := c.Server.Freeze(); err != nil {
			return err
		}

		c.Injected.Add(1)

		pause := beyondTTL(r)
		if r.IntN(3) == 0 {
			pause = between(r, 50, 500)
		}

		time.Sleep(pause)

		if err := c.Server.Thaw(); err != nil {
			return err
		}
	}

	return nil
}

// killServer ends the server by SIGKILL, all of it at once, and starts it again.
func killServer(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 200, 900)) {
		err := c.Crash(func() error {
			if err := c.Server.Kill(); err != nil {
				return err
			}

			c.Injected.Add(1)

			return c.Server.Start(context.WithoutCancel(ctx))
		})
		if err != nil {
			return err
		}
	}

	return nil
}

// killPostmaster ends the server's main process alone, by SIGKILL, and starts the server again a
// little later. Until then sessions live on that have something to do.
func killPostmaster(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 200, 900)) {
		orphaned := between(r, 0, 300)

		text, err := os.ReadFile(filepath.Join(c.Server.DataDir(), "postmaster.pid"))
		if err != nil {
			return fmt.Errorf("fault: %w", err)
		}

		line, _, _ := strings.Cut(string(text), "\n")

		pid, err := strconv.Atoi(line)
		if err != nil {
			return fmt.Errorf("fault: the server's lock file: %w", err)
		}

		err = c.Crash(func() error {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				return fmt.Errorf("fault: %w", err)
			}

			c.Injected.Add(1)

			time.Sleep(orphaned)

			// The process may take a moment to be gone.
			err := c.Server.Start(context.WithoutCancel(ctx))
			for errors.Is(err, pgtesting.ErrServerUp) {
				time.Sleep(time.Millisecond)
				err = c.Server.Start(context.WithoutCancel(ctx))
			}

			return err
		})
		if err != nil {
			return err
		}
	}

	return nil
}

// restartImmediate is as good as a crash.
func restartImmediate(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 200, 900)) {
		err := c.Crash(func() error {
			return c.Server.Restart(context.WithoutCancel(ctx), pgtesting.ImmediateShutdown)
		})
		if err != nil {
			return err
		}

		c.Injected.Add(1)
	}

	return nil
}

// restartFast is an orderly restart, which loses nothing.
func restartFast(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 300, 1000)) {
		if err := c.Server.Restart(context.WithoutCancel(ctx), pgtesting.FastShutdown); err != nil {
			return err
		}

		c.Injected.Add(1)
	}

	return nil
}

// recoverWithin is how long a server may take to recover after one of its processes was killed.
const recoverWithin = 15 * time.Second

// noticedWithin is how long a server that answers may take to notice that one of its
// processes was killed.
const noticedWithin = 3 * time.Second

// killBackends ends one session's process by SIGKILL. The server then ends all others and recovers.
func killBackends(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 300, 1000)) {
		if err := killBackend(ctx, c, r); err != nil {
			return err
		}
	}

	return nil
}

func killBackend(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	witness, err := c.Admin.Conn(ctx)
	if err != nil {
		return nil // it is down for another fault's sake
	}
	defer witness.Close()

	pids, err := backends(ctx, c)
	if err != nil || len(pids) == 0 {
		return nil // no client is there yet
	}

	pid := pids[r.IntN(len(pids))]
	from := history.Now()
	if syscall.Kill(int(pid), syscall.SIGKILL) != nil {
		return nil // it has ended by itself
	}

	// The server ends the witness, too, once it notices.
	for deadline := time.Now().Add(noticedWithin); witness.PingContext(context.WithoutCancel(ctx)) == nil; {
		if time.Now().After(deadline) {
			return nil // it was about to end by itself
		}

		time.Sleep(time.Millisecond)
	}

	c.Injected.Add(1)

	defer func() { c.Notes.Note(history.Event{Kind: history.Crash, From: from}) }()

	return persist(ctx, c.Admin.PingContext)
}
