package fault

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/middle"
)

// forgeries are what is said in the place of a reply, by a pooler that has lost its connection
// to the server, or by a server that ends a session after the commit.
var forgeries = []middle.Forgery{
	{Severity: "FATAL", Code: "XX000"},
	{Severity: "FATAL", Code: "XX000", Rows: true},
	{Severity: "ERROR", Code: "XX000"},
	{Severity: "FATAL", Code: "25P04"},
	{Severity: "FATAL", Code: "53400"},
	{Severity: "PANIC", Code: "XX001"},
}

// forgeReplies puts an error in the place of the reply to what was committed, now and then.
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

// delayRequests cuts clients off that have just sent a change of locks, and delivers it
// later: when they may have asked again, been granted a lock, and given it up.
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
