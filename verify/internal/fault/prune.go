package fault

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/ismurov/pglocker"

	"github.com/ismurov/pglocker/verify/internal/cluster"
)

// pruneRows prunes locks that have been free for next to no time. The clients come back to them at once.
func pruneRows(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	locker, err := pglocker.New(c.Admin, &pglocker.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}

	for rest(ctx, between(r, 5, 50)) {
		// Another fault may have the server down.
		removed, err := locker.Prune(ctx, time.Duration(r.IntN(20))*time.Millisecond)
		if errors.Is(err, pglocker.ErrPermissionDenied) || errors.Is(err, pglocker.ErrInvalidTable) {
			return errors.Join(err, locker.Close(context.WithoutCancel(ctx)))
		}

		c.Injected.Add(removed)
	}

	return locker.Close(context.WithoutCancel(ctx))
}
