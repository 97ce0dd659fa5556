package suite

import (
	"context"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// lookEvery is how often the suite looks at the clients' histories while they recover.
const lookEvery = 100 * time.Millisecond

// awaitRecovery lets the traffic go on, once nothing is broken any more, until the clients have
// done what O6 demands, or haven't in time. So a good run isn't made longer by those times.
func awaitRecovery(ctx context.Context, c *cluster.Cluster, extras traffic.Extras) error {
	tail, err := history.NewTail(c.Folder)
	if err != nil {
		return err
	}

	died := c.Died()
	recovery := oracle.NewRecovery(c.Healed(), extras)

	for {
		// All clients have to recover from that, too.
		if now := c.Died(); now > died {
			died = now
			recovery = oracle.NewRecovery(c.Healed(), extras)
		}

		events, err := tail.Read()
		if err != nil {
			return err
		}

		for _, e := range events {
			recovery.See(e)
		}

		if recovery.Over(history.Now()) {
			return nil
		}

		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
