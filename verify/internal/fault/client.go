package fault

import (
	"context"
	"math/rand/v2"
	"slices"
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

		if anyClient(c, r).Stop(ctx, pause) {
			c.Injected.Add(1)
		}
	}

	return nil
}

// mostlyBeyondTTL is a pause that seldom leaves a lease alive.
func mostlyBeyondTTL(r *rand.Rand) time.Duration {
	if r.IntN(3) == 0 {
		return between(r, 600, 900)
	}

	return beyondTTL(r)
}

// beyondShortTTL is a pause that the shortest leases don't survive.
func beyondShortTTL(r *rand.Rand) time.Duration { return between(r, 600, 900) }

// mostlyUnguarded are the places of writers, the late guard being one of four.
func mostlyUnguarded() []string {
	return slices.Concat(slices.Repeat(traffic.UnfencedPlaces(), 2), traffic.WriterPlaces())
}

// stopAt makes each client stop itself where it matters, at one of the places after the other. The
// clients do that without regard to each other: each begins at another place.
func stopAt(pause func(*rand.Rand) time.Duration, places ...string) func(context.Context, *cluster.Cluster, *rand.Rand) error {
	return func(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
		var wait sync.WaitGroup

		first := r.IntN(len(places))

		for i, client := range c.Clients {
			r := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))

			wait.Go(func() {
				for n := first + i; rest(ctx, between(r, 10, 300)); n++ {
					if client.StopAt(ctx, places[n%len(places)], pause(r)) {
						c.Injected.Add(1)
					}
				}
			})
		}

		wait.Wait()
		wakeAll(c)

		return nil
	}
}

// wakeAll lets all clients go on, also those that stop late.
func wakeAll(c *cluster.Cluster) {
	for _, client := range c.Clients {
		client.Tell(traffic.PauseNowhere)
	}

	for range 20 {
		for _, client := range c.Clients {
			client.Continue()
		}

		time.Sleep(5 * time.Millisecond)
	}
}

// killClients ends one client after the other by SIGKILL. Each has a successor.
func killClients(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 100, 700)) {
		if err := anyClient(c, r).Kill(); err != nil {
			return err
		}

		c.Injected.Add(1)
	}

	return nil
}

// exhaustPools lets the applications use up their pools, for longer than leases last. They record
// themselves when they have.
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
			time.Sleep(pause) // they have the last ones for so long, at most

			return nil
		}
	}
}
