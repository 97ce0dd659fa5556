package suite

import (
	"context"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// lookEvery is how often the clients' histories are looked at while they recover.
const lookEvery = 100 * time.Millisecond

// awaitRecovery lets the traffic go on, once nothing is broken any more, until the clients do
// again what O6 wants of them, or haven't done it in time. So a run in which all is well isn't
// made longer by those times.
func awaitRecovery(ctx context.Context, c *cluster.Cluster, extras traffic.Extras) error {
	tail, err := history.NewTail(c.Folder)
	if err != nil {
		return err
	}

	died := c.Died()
	recovery := oracle.NewRecovery(c.Healed(), extras)

	for {
		// Everybody has to recover from that, too.
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
