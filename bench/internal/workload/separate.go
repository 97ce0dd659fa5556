package workload

import (
	"context"
	"fmt"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
)

// Clients are the parameters of W10.
func Clients(n int) string { return fmt.Sprintf("clients=%d", n) }

// Separate is W10: many clients of one goroutine and one connection each, as many small processes are. Each has a
// lock of its own, so nothing gathers in a batch.
func (b *Bench) Separate(ctx context.Context) error {
	contenders := b.only(contender.NamePglocker, contender.NamePglockerLock, contender.NameFloor, contender.NameBare)

	for _, clients := range b.Plan.SeparateClients {
		var entries []entry

		for _, c := range contenders {
			key := result.Key{Workload: "W10", Params: Clients(clients), Contender: c.Name()}
			entries = append(entries, entry{name: key.String(), run: func(ctx context.Context) error {
				l := b.load(clients)
				l.clients = clients
				// Each client first looks at the table, and has every statement planned a few times.
				l.warmUp *= 5

				return b.measure(ctx, key, c, contender.Options{Pool: 1}, l)
			}})
		}

		if err := interleave(ctx, b.Plan.SeparateRounds, entries); err != nil {
			return err
		}
	}

	return nil
}
