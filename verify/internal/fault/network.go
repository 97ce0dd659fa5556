package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
)

// breakage spoils the network of one client.
type breakage func(p *cluster.Proxy, r *rand.Rand) error

// network breaks the network of one or two clients, again and again, sometimes briefly and
// sometimes for longer than leases last.
func network(how breakage) func(context.Context, *cluster.Cluster, *rand.Rand) error {
	return func(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
		for rest(ctx, between(r, 20, 150)) {
			first, second := anyClient(c, r), anyClient(c, r)
			broken := []*cluster.Client{first}

			if second != first && r.IntN(2) == 0 {
				broken = append(broken, second)
			}

			for _, client := range broken {
				if err := how(client.Proxy, r); err != nil {
					return err
				}

				c.Injected.Add(1)
			}

			pause := between(r, 50, 400)
			if r.IntN(3) == 0 {
				pause = beyondTTL(r)
			}

			rest(ctx, pause)

			for _, client := range broken {
				client.Proxy.Heal()
			}
		}

		return nil
	}
}

// blackHole swallows everything in both directions.
func blackHole(p *cluster.Proxy, _ *rand.Rand) error {
	if err := p.Break("timeout", cluster.Requests, `{"timeout": 0}`); err != nil {
		return err
	}

	return p.Break("timeout", cluster.Replies, `{"timeout": 0}`)
}

// reset ends connections as soon as something comes over them.
func reset(p *cluster.Proxy, r *rand.Rand) error {
	direction := cluster.Requests
	if r.IntN(2) == 0 {
		direction = cluster.Replies
	}

	return p.Break("reset_peer", direction, fmt.Sprintf(`{"timeout": %d}`, r.IntN(20)))
}

// latency delays, in one direction or both, by times that differ from packet to packet.
func latency(p *cluster.Proxy, r *rand.Rand) error {
	delay := 5 + r.IntN(120)
	attributes := fmt.Sprintf(`{"latency": %d, "jitter": %d}`, delay, delay/2)

	if err := p.Break("latency", cluster.Replies, attributes); err != nil || r.IntN(2) == 0 {
		return err
	}

	return p.Break("latency", cluster.Requests, attributes)
}

// late delays requests by about as long as leases last. They are carried out when another client
// may have the lock. Healing delivers them at once, and so must not come too soon.
func late(p *cluster.Proxy, r *rand.Rand) error {
	delay := 300 + r.IntN(900)
	if err := p.Break("latency", cluster.Requests, fmt.Sprintf(`{"latency": %d, "jitter": %d}`, delay, delay/4)); err != nil {
		return err
	}

	time.Sleep(between(r, 200, 500))

	return nil
}

// lateHoles does to each client what [lateHole] does, without regard to the others.
func lateHoles(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	var (
		wait sync.WaitGroup
		errs = make([]error, len(c.Clients))
	)

	for i, client := range c.Clients {
		r := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))

		wait.Go(func() {
			for errs[i] == nil && rest(ctx, between(r, 100, 500)) {
				errs[i] = lateHole(ctx, c, client.Proxy, r)
			}
		})
	}

	wait.Wait()

	return errors.Join(errs...)
}

// lateHole delays replies, and swallows all requests once the delays have been met. So the last
// answer that a holder gets is old, and nothing is done for it without an answer.
func lateHole(ctx context.Context, c *cluster.Cluster, p *cluster.Proxy, r *rand.Rand) error {
	defer p.Heal()

	delay := 80 + r.IntN(120)
	if err := p.Break("latency", cluster.Replies, fmt.Sprintf(`{"latency": %d}`, delay)); err != nil {
		return err
	}

	rest(ctx, between(r, 250, 400))

	if err := p.Break("timeout", cluster.Requests, `{"timeout": 0}`); err != nil {
		return err
	}

	c.Injected.Add(1)

	hole := between(r, 450, 900)
	if r.IntN(4) == 0 {
		hole = beyondTTL(r)
	}

	rest(ctx, hole)

	return nil
}

// farOff puts one client farther away from the server than the others. That breaks nothing. All
// others hear at once what it has the server send, and none but it is late to ask.
func farOff(ctx context.Context, c *cluster.Cluster, _ *rand.Rand) error {
	far := c.Clients[0].Proxy
	if err := far.Break("latency", cluster.Requests, `{"latency": 20}`); err != nil {
		return err
	}

	<-ctx.Done()
	far.Heal()

	return nil
}

// slow lets through a few kilobytes a second.
func slow(p *cluster.Proxy, r *rand.Rand) error {
	return p.Break("bandwidth", cluster.Replies, fmt.Sprintf(`{"rate": %d}`, 1+r.IntN(8)))
}

// cut ends connections after some bytes of replies, which may be in the middle of one.
func cut(p *cluster.Proxy, r *rand.Rand) error {
	return p.Break("limit_data", cluster.Replies, fmt.Sprintf(`{"bytes": %d}`, 1+r.IntN(2000)))
}

// oneWay swallows what goes in one direction.
func oneWay(p *cluster.Proxy, r *rand.Rand) error {
	direction := cluster.Requests
	if r.IntN(3) > 0 {
		direction = cluster.Replies // the requests are carried out
	}

	return p.Break("timeout", direction, `{"timeout": 0}`)
}
