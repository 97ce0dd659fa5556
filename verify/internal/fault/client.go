package fault

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// stopClients halts one client after the other from outside, mostly for longer than
// leases last.
func stopClients(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 50, 200)) {
		pause := beyondTTL(r)
		if r.IntN(3) == 0 {
			pause = between(r, 100, 600)
		}

		c.Injected.Add(1)
		anyClient(c, r).Stop(pause)
	}

	return nil
}

// stopWithin makes each client stop itself where it matters: between what it read and what
// it writes, in its renewer, between a request and its reply.
func stopWithin(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	places := traffic.PausePlaces()

	for n := r.IntN(len(places)); rest(ctx, between(r, 50, 150)); n++ {
		client := anyClient(c, r)

		c.Injected.Add(1)
		client.Tell(traffic.Pause + " " + places[n%len(places)])

		// It gets there soon, or goes on as if nothing was.
		rest(ctx, beyondTTL(r))
		client.Continue()
	}

	wakeAll(c)

	return nil
}

// stopWriters makes all clients stop themselves between what they read and what they
// write, or before a late guard, one after the other but for the pauses, which overlap.
func stopWriters(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	var wait sync.WaitGroup

	for _, client := range c.Clients {
		r := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))

		wait.Go(func() {
			for rest(ctx, between(r, 10, 300)) {
				c.Injected.Add(1)

				where := traffic.PauseWriter
				if r.IntN(4) == 0 {
					where = traffic.PauseGuard
				}

				client.Tell(where)
				rest(ctx, between(r, 600, 900)) // longer than the shortest leases
				client.Continue()
			}
		})
	}

	wait.Wait()
	wakeAll(c)

	return nil
}

// wakeAll lets everybody go on, also those who stop late.
func wakeAll(c *cluster.Cluster) {
	for _, client := range c.Clients {
		client.Tell(traffic.Pause + " nowhere")
	}

	for range 20 {
		for _, client := range c.Clients {
			client.Continue()
		}

		time.Sleep(5 * time.Millisecond)
	}
}

// killClients ends one client after the other by SIGKILL. Others take their place.
func killClients(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 100, 700)) {
		if err := anyClient(c, r).Kill(); err != nil {
			return err
		}

		c.Injected.Add(1)
	}

	return nil
}

// exhaustPools lets the applications use up their pools, for longer than leases last. They
// record by themselves when they have.
func exhaustPools(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for {
		pause := beyondTTL(r)
		always := r.IntN(len(c.Clients))

		for i, client := range c.Clients {
			if i == always || r.IntN(2) == 0 {
				client.Tell(traffic.Exhaust + " " + pause.String())
			}
		}

		if !rest(ctx, pause+between(r, 100, 300)) {
			return nil
		}
	}
}
