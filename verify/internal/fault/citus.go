package fault

import (
	"context"
	"math/rand/v2"

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/citus"
	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/replica"
)

// Distributed lists the faults of a cluster of three servers, of which two have the rows. Each has a cluster of
// its own, whose servers are made with the options.
func Distributed(options ...pgtesting.ServerOption) []Fault {
	of := func(name string, standby bool, inject func(*spread, context.Context, *cluster.Cluster, *rand.Rand) error) Fault {
		return Fault{
			Name: name, Server: true, Alone: true, Distributed: true,
			Setup: func(ctx context.Context, clients int) (Setup, error) {
				servers, err := citus.Start(ctx, standby, true, options...)
				if err != nil {
					return nil, err
				}

				return &spread{servers, clients, inject}, nil
			},
		}
	}

	return []Fault{
		of("worker-kill", false, (*spread).killWorkers),
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

// killWorkers ends one worker or the other by SIGKILL, and starts it again. No note tells the oracles: what it has
// answered stays so, releases too.
func (s *spread) killWorkers(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 300, 1500)) {
		worker := s.Alone[r.IntN(len(s.Alone))]

		if err := worker.Kill(); err != nil {
			return err
		}

		c.Injected.Add(1)
		rest(ctx, between(r, 0, 600))

		if err := worker.Start(context.WithoutCancel(ctx)); err != nil {
			return err
		}
	}

	return nil
}
