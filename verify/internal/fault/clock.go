package fault

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// stepClock sets the server's clock ahead, again and again, by less and by more than leases
// last.
func stepClock(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	var ahead time.Duration

	for rest(ctx, between(r, 200, 600)) {
		ahead += between(r, 50, 3000)
		if err := setClock(c, ahead); err != nil {
			return err
		}
	}

	return nil
}

// setClockBack sets the server's clock back, again and again, mostly by less than leases last.
// After a larger step it rests as long: a lease that must run to its end keeps all clients waiting
// until then.
func setClockBack(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	var ahead time.Duration

	for pause := between(r, 100, 400); rest(ctx, pause); {
		step := between(r, 5, 500)
		pause = between(r, 100, 400)

		if r.IntN(4) == 0 {
			step = beyondTTL(r)
			pause += step
		}

		ahead -= step
		if err := setClock(c, ahead); err != nil {
			return err
		}
	}

	return nil
}

// strobeClock sets the server's clock forward and back every few milliseconds, first by less than
// leases last, then by more.
func strobeClock(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for rest(ctx, between(r, 50, 200)) {
		most := int(traffic.MaxTTL / time.Millisecond)
		if r.IntN(3) > 0 {
			most /= 10 // of the same size as the margins
		}

		strobing, cancel := context.WithTimeout(ctx, between(r, 200, 800))

		for rest(strobing, between(r, 5, 50)) {
			if err := setClock(c, between(r, -2*most, 2*most)); err != nil {
				cancel()

				return err
			}
		}

		cancel()
	}

	return c.SetClock(0)
}

func setClock(c *cluster.Cluster, ahead time.Duration) error {
	if err := c.SetClock(ahead); err != nil {
		return err
	}

	c.Injected.Add(1)

	return nil
}
