package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/ismurov/pglocker/pgtesting"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/replica"
	"github.com/ismurov/pglocker/verify/internal/route"
)

// failover is a primary and its standby. The first route is the coordinator's, the others
// are the clients'.
type failover struct {
	pair   *replica.Pair
	routes []*route.Route
	round  round
	// rounds counts them.
	rounds int
}

// round ends with another primary, and with the old one down.
type round func(f *failover, ctx context.Context, c *cluster.Cluster, r *rand.Rand) error

func startFailover(ctx context.Context, clients int, synchronous bool, round round, options []pgtesting.ServerOption) (_ Setup, err error) {
	f := &failover{round: round}

	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()

	if f.pair, err = replica.Start(ctx, synchronous, options...); err != nil {
		return nil, err
	}

	for range clients + 1 {
		way, err := route.New(replica.Address(f.pair.Primary))
		if err != nil {
			return nil, err
		}

		f.routes = append(f.routes, way)
	}

	return f, nil
}

// Addresses implements [Setup].
func (f *failover) Addresses() []string { return addresses(f.routes) }

func addresses(routes []*route.Route) []string {
	var all []string
	for _, way := range routes {
		all = append(all, way.Address())
	}

	return all
}

// Close implements [Setup].
func (f *failover) Close() error {
	var errs []error
	for _, way := range f.routes {
		errs = append(errs, way.Close())
	}

	if f.pair != nil {
		errs = append(errs, f.pair.Stop())
	}

	return errors.Join(errs...)
}

// Inject implements [Setup]: one round after the other, with a new standby for each.
func (f *failover) Inject(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	uncut := context.WithoutCancel(ctx)

	for rest(ctx, between(r, 300, 900)) {
		f.rounds++

		if err := f.round(f, uncut, c, r); err != nil {
			return err
		}

		rest(ctx, between(r, 100, 900)) // on the new primary alone

		if err := f.pair.Join(uncut); err != nil {
			return err
		}
	}

	return nil
}

// takeOver ends or halts the primary and promotes the standby. If the pair is asynchronous, the
// standby may lack the last commits.
func (f *failover) takeOver(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	received, err := f.pair.Received(ctx)
	if err != nil {
		return err
	}

	f.cut(r)

	old := f.pair.Primary
	frozen := r.IntN(3) == 0

	if frozen {
		err = old.Freeze()
	} else {
		err = old.Kill()
	}

	if err != nil {
		return err
	}

	if err := f.pair.Promote(ctx, r.IntN(3) == 0); err != nil {
		return err
	}

	f.turn(f.routes...)
	f.note(c, received)

	if !frozen {
		return nil
	}

	// It finds all its connections closed, its standby's among them.
	if err := old.Thaw(); err != nil {
		return err
	}

	time.Sleep(between(r, 10, 300))

	return old.Kill()
}

// cancelWaits cancels, on the primary, what waits for the synchronous standby. The server then
// answers that all went well, though nothing has reached the standby. Then the standby is promoted.
func (f *failover) cancelWaits(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	received, err := f.pair.Received(ctx)
	if err != nil {
		return err
	}

	f.pair.Link.To("")

	for until := time.Now().Add(between(r, 200, 600)); time.Now().Before(until); time.Sleep(between(r, 2, 20)) {
		if err := f.pair.CancelWaits(ctx); err != nil {
			return err
		}
	}

	if err := f.pair.Primary.Kill(); err != nil {
		return err
	}

	if err := f.pair.Promote(ctx, false); err != nil {
		return err
	}

	f.turn(f.routes...)
	c.Notes.Note(history.Event{Kind: history.Failover, From: received})
	c.Notes.Note(history.Event{Kind: history.Loss, From: received})

	return nil
}

// leaveRunning promotes the standby, and leaves some of the clients to the old primary.
func (f *failover) leaveRunning(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	received, err := f.pair.Received(ctx)
	if err != nil {
		return err
	}

	// The clients that stay are drawn. The coordinator goes.
	moved := f.routes[:1:1]
	var (
		left  []*route.Route
		names []string // of the clients that may be granted what is lost
	)

	for i, n := range r.Perm(len(f.routes) - 1) {
		if way := f.routes[n+1]; i%2 == 0 {
			left = append(left, way)

			if !f.pair.Synchronous {
				names = append(names, c.Clients[n].Name())
			}
		} else {
			moved = append(moved, way)
		}
	}

	f.cut(r)

	for _, way := range moved {
		way.To("")
	}

	old := f.pair.Primary

	if err := f.pair.Promote(ctx, false); err != nil {
		return err
	}

	f.turn(moved...)
	time.Sleep(beyondTTL(r) + between(r, 0, 1500))
	f.turn(left...)
	f.note(c, received)

	for _, name := range names {
		c.Notes.Note(history.Event{Kind: history.OldPrimary, Detail: name, From: received})
	}

	return old.Kill()
}

// cut keeps the standby from receiving more, for so long that commits are lost that aren't awaited.
// Where commits are awaited, it does so every second time.
func (f *failover) cut(r *rand.Rand) {
	if f.pair.Synchronous && f.rounds%2 == 0 {
		return
	}

	f.pair.Link.To("")
	time.Sleep(between(r, 50, 600))
}

// turn makes routes lead to the primary.
func (f *failover) turn(routes ...*route.Route) {
	for _, way := range routes {
		way.To(replica.Address(f.pair.Primary))
	}
}

// note records a failover that is complete now. What was acknowledged before the standby had
// received everything is there.
func (f *failover) note(c *cluster.Cluster, received int64) {
	c.Notes.Note(history.Event{Kind: history.Failover, From: received})

	if !f.pair.Synchronous {
		c.Notes.Note(history.Event{Kind: history.Loss, From: received})
	}
}
