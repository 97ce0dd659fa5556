package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/patroni"
)

// ErrMissing: this machine lacks a program that a fault needs.
var ErrMissing = patroni.ErrMissing

// Setup is a database with several servers, one of which takes over from another.
type Setup interface {
	// Addresses are the coordinator's way to the database, and each client's.
	Addresses() []string
	// Inject is as [Fault.Inject].
	Inject(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error
	Close() error
}

// HA lists the faults that need more than one server, in the order in which they are run.
// Each has a set-up of its own, whose servers are made with the options.
func HA(options ...pgtesting.ServerOption) []Fault {
	pair := func(name string, synchronous, loses bool, round round) Fault {
		return Fault{
			Name: name, Loses: loses, Server: true, Alone: true,
			Setup: func(ctx context.Context, clients int) (Setup, error) {
				return startFailover(ctx, clients, synchronous, round, options)
			},
		}
	}

	three := func(name string, trouble trouble) Fault {
		return Fault{
			Name: name, Server: true, Alone: true,
			Setup: func(ctx context.Context, clients int) (Setup, error) { return startElected(ctx, clients, trouble) },
		}
	}

	return []Fault{
		pair("failover-sync", true, false, (*failover).takeOver),
		pair("failover-async", false, true, (*failover).takeOver),
		pair("old-primary", true, false, (*failover).leaveRunning),
		pair("old-primary-async", false, true, (*failover).leaveRunning),
		pair("wait-cancelled", true, true, (*failover).cancelWaits),
		three("patroni-kill", (*elected).killLeader),
		three("patroni-switchover", (*elected).switchOver),
		three("patroni-pause", (*elected).pauseLeader),
	}
}

// FailoverMixture is failovers to a synchronous standby, by one of the ways in which all promises
// hold. At the same time it has some of the faults that end, halt or change no server, as r draws
// them.
func FailoverMixture(r *rand.Rand, parts int, options ...pgtesting.ServerOption) Fault {
	ways := slices.DeleteFunc(HA(options...), func(f Fault) bool {
		return f.Name != "failover-sync" && f.Name != "old-primary"
	})
	way := ways[r.IntN(len(ways))]

	others := mix("", draw(r, parts, func(f Fault) bool { return !f.Alone && !f.Server && !f.Pooled && !f.Cancels }))

	return Fault{
		Name: "failover-mixture", With: way.Name + ", " + others.With, Server: true, Alone: true, Stops: others.Stops,
		Setup: func(ctx context.Context, clients int) (Setup, error) {
			setup, err := way.Setup(ctx, clients)
			if err != nil {
				return nil, err
			}

			return troubled{setup, others}, nil
		},
	}
}

// troubled is a set-up with another fault at the same time.
type troubled struct {
	Setup
	others Fault
}

// Inject implements [Setup].
func (t troubled) Inject(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	var (
		wait sync.WaitGroup
		err  error
		own  = rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))
	)

	wait.Go(func() { err = t.others.Inject(ctx, c, own) })

	failed := t.Setup.Inject(ctx, c, r)

	wait.Wait()

	return errors.Join(failed, err)
}
