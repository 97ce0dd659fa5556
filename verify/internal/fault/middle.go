package fault

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/middle"
)

// forgeries are errors in the place of a reply: of a pooler that has lost its connection to the
// server, and of a server that ends a session after the commit.
var forgeries = []middle.Forgery{
	{Severity: "FATAL", Code: "XX000"},
	{Severity: "FATAL", Code: "XX000", Rows: true},
	{Severity: "ERROR", Code: "XX000"},
	{Severity: "FATAL", Code: "25P04"},
	{Severity: "FATAL", Code: "53400"},
	{Severity: "PANIC", Code: "XX001"},
}

// forgeReplies puts an error in the place of some replies to what was committed.
func forgeReplies(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for _, client := range c.Clients {
		r := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))

		client.Middle.Forge(func() *middle.Forgery {
			if r.IntN(10) > 0 {
				return nil
			}

			return &forgeries[r.IntN(len(forgeries))]
		})
	}

	<-ctx.Done()

	for _, client := range c.Clients {
		client.Middle.Forge(nil)
		c.Injected.Add(client.Middle.Made())
	}

	return nil
}

// delayRequests cuts off clients that have just sent a change of locks, and delivers it later. By
// then they may have asked again, been granted a lock, and released it.
func delayRequests(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	for _, client := range c.Clients {
		r := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))

		client.Middle.Delay(func() time.Duration {
			if r.IntN(20) > 0 {
				return 0
			}

			return between(r, 20, 400)
		})
	}

	<-ctx.Done()

	for _, client := range c.Clients {
		client.Middle.Delay(nil)
		c.Injected.Add(client.Middle.Made())
	}

	return nil
}
