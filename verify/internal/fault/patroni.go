package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/history"
	"github.com/ismurov/pglocker/verify/internal/patroni"
	"github.com/ismurov/pglocker/verify/internal/route"
)

// elected is a cluster under Patroni. Its routes are like those of failover, and lead to its
// haproxy.
type elected struct {
	cluster *patroni.Cluster
	routes  []*route.Route
	trouble trouble
	// rounds counts how often there was trouble.
	rounds int
}

// trouble makes the cluster change its leader, or want to.
type trouble func(e *elected, ctx context.Context, leader *patroni.Node, r *rand.Rand) error

func startElected(ctx context.Context, clients int, trouble trouble) (_ Setup, err error) {
	e := &elected{trouble: trouble}

	defer func() {
		if err != nil {
			err = errors.Join(err, e.Close())
		}
	}()

	if e.cluster, err = patroni.Start(ctx); err != nil {
		return nil, err
	}

	for range clients + 1 {
		way, err := route.New(e.cluster.Address())
		if err != nil {
			return nil, err
		}

		e.routes = append(e.routes, way)
	}

	return e, nil
}

// Addresses implements [Setup].
func (e *elected) Addresses() []string { return addresses(e.routes) }

// Close implements [Setup].
func (e *elected) Close() error {
	var errs []error
	for _, way := range e.routes {
		errs = append(errs, way.Close())
	}

	if e.cluster != nil {
		errs = append(errs, e.cluster.Close())
	}

	return errors.Join(errs...)
}

// Inject implements [Setup].
func (e *elected) Inject(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
	uncut := context.WithoutCancel(ctx)

	for rest(ctx, between(r, 300, 1500)) {
		leader := e.cluster.Leader(uncut)
		if leader == nil {
			continue
		}

		e.rounds++
		from := history.Now()
		// What was acknowledged is on a standby; by now, what was only visible is, too.
		time.Sleep(50 * time.Millisecond)

		err := e.trouble(e, uncut, leader, r)

		kind := history.Failover
		if e.cluster.Leader(uncut) == leader { // it crashed, and leads again
			kind = history.Crash
		}

		c.Notes.Note(history.Event{Kind: kind, From: from})

		if err != nil {
			return err
		}

		if err := e.cluster.AwaitHealthy(uncut); err != nil {
			return err
		}
	}

	return nil
}

// killLeader ends the leader's server and its Patroni.
func (e *elected) killLeader(ctx context.Context, leader *patroni.Node, _ *rand.Rand) error {
	if err := leader.Kill(); err != nil {
		return err
	}

	return errors.Join(e.cluster.AwaitLeader(ctx, leader), leader.Start())
}

// switchOver asks for another leader.
func (e *elected) switchOver(ctx context.Context, leader *patroni.Node, _ *rand.Rand) error {
	if err := e.cluster.SwitchOver(ctx, leader); err != nil {
		return err
	}

	return e.cluster.AwaitLeader(ctx, leader)
}

// pauseLeader halts the leader's Patroni until another server leads. The old leader's server goes
// on, and half of the clients go there directly. Every second time Patroni is paused altogether,
// and the leader's server dies meanwhile.
func (e *elected) pauseLeader(ctx context.Context, leader *patroni.Node, r *rand.Rand) error {
	if e.rounds%2 == 0 {
		if err := e.cluster.Pause(ctx, true); err != nil {
			return err
		}

		time.Sleep(between(r, 1500, 2500)) // all have heard of it

		err := leader.KillServer()

		time.Sleep(beyondTTL(r))

		return errors.Join(err, e.cluster.Pause(ctx, false), e.cluster.AwaitLeader(ctx, nil))
	}

	for i := range e.routes {
		if i%2 == 1 {
			e.routes[i].To(leader.Address())
		}
	}

	leader.Freeze()

	err := e.cluster.AwaitElected(ctx, leader)

	time.Sleep(beyondTTL(r))

	for i := range e.routes {
		if i%2 == 1 {
			e.routes[i].To(e.cluster.Address())
		}
	}

	leader.Thaw()

	if err != nil {
		return err
	}

	// At first the old Patroni says what it knew, and haproxy may lead there again.
	return e.cluster.AwaitHealthy(ctx)
}
