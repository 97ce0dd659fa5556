package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/citus"
	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/replica"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// Distributed lists the faults of a cluster of three servers, of which two have the rows. Each has a cluster of
// its own, whose servers are made with the options.
func Distributed(options ...pgtesting.ServerOption) []Fault {
	of := func(name string, standby citus.Standby, inject func(*spread, context.Context, *cluster.Cluster, *rand.Rand) error) Fault {
		return Fault{
			Name: name, Server: true, Alone: true, Distributed: true, Loses: standby == citus.Asynchronous,
			Setup: func(ctx context.Context, clients int) (Setup, error) {
				servers, err := citus.Start(ctx, standby, options...)
				if err != nil {
					return nil, err
				}

				return &spread{servers, clients, inject}, nil
			},
		}
	}

	return []Fault{
		of("worker-kill", citus.NoStandby, (*spread).killWorkers),
		of("worker-promoted", citus.Synchronous, (*spread).promote),
		of("worker-promoted-async", citus.Asynchronous, (*spread).promote),
		of("shard-moved", citus.NoStandby, (*spread).moveShards),
	}
}

// spread is a cluster. All clients go to its coordinator.
type spread struct {
	*citus.Cluster
	clients int
	inject  func(s *spread, ctx context.Context, c *cluster.Cluster, r *rand.Rand) error
}

// Addresses implements [Setup].
func (s *spread) Addresses() []string {
	var all []string
	for range s.clients + 1 {
		all = append(all, replica.Address(s.Coordinator))
	}

	return all
}

// Inject implements [Setup].
func (s *spread) Inject(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	return s.inject(s, ctx, c, r)
}

// Close implements [Setup].
func (s *spread) Close() error { return s.Stop() }

// killWorkers ends one worker or the other by SIGKILL, and starts it again.
func (s *spread) killWorkers(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 300, 1500)) {
		worker := s.Alone[r.IntN(len(s.Alone))]
		down := between(r, 0, 600)

		err := c.Crash(func() error {
			if err := worker.Kill(); err != nil {
				return err
			}

			c.Injected.Add(1)
			rest(ctx, down)

			return worker.Start(context.WithoutCancel(ctx))
		})
		if err != nil {
			return err
		}
	}

	return nil
}

// promote ends the worker that has a standby, promotes that, and tells the cluster where the worker is now. What it
// was before becomes its standby, and so on. An asynchronous standby lacks the last commits.
func (s *spread) promote(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	uncut := context.WithoutCancel(ctx)

	for n := 0; rest(ctx, between(r, 500, 1500)); n++ {
		received, err := s.Pair.Received(uncut)
		if err != nil {
			return err
		}

		if n%2 == 1 || !s.Pair.Synchronous { // commits that are awaited wait
			s.Pair.Link.To("")
			time.Sleep(between(r, 50, 600))
		}

		old := s.Pair.Primary
		if err := old.Kill(); err != nil {
			return err
		}

		if err := s.Pair.Promote(uncut, r.IntN(3) == 0); err != nil {
			return err
		}

		if err := s.MoveWorker(uncut, old, s.Pair.Primary); err != nil {
			return err
		}

		c.Notes.Note(history.Event{Kind: history.Failover, From: received})

		if !s.Pair.Synchronous {
			c.Notes.Note(history.Event{Kind: history.Loss, From: received})
		}

		rest(ctx, between(r, 100, 900)) // on the new primary alone

		if err := s.Pair.Join(uncut); err != nil {
			return err
		}
	}

	return nil
}

// moveShards moves locks from one worker to the other. Citus refuses to, while it can't drop what an earlier move has
// left behind, since a session uses that.
func (s *spread) moveShards(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	contended := traffic.Extras{Plain: true, Recipes: true}.Contended()

	for rest(ctx, between(r, 50, 300)) {
		lock := contended[r.IntN(len(contended))]

		err := s.MoveShard(context.WithoutCancel(ctx), lock.ID)

		var refusal *pgconn.PgError

		switch {
		case err == nil:
			c.Injected.Add(1)
		case !errors.As(err, &refusal):
			return err
		}
	}

	return nil
}
