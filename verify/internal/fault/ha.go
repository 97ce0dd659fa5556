package fault

import (
	"context"
	"math/rand/v2"

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/patroni"
)

// ErrMissing: this machine lacks a program that a fault needs.
var ErrMissing = patroni.ErrMissing

// Setup is a database that several servers keep, one of which takes over from another.
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
