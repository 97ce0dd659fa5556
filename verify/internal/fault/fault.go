// Package fault is what a run does to its cluster. Each fault injects itself again and again until
// its time is over, and heals what it broke before it returns.
package fault

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/oracle"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

// Fault is one way to break things.
type Fault struct {
	Name string
	// With lists what a mixture is made of.
	With string
	// Inject runs until ctx ends. r is all the randomness that it uses.
	Inject func(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error
	// Pooled: it needs a pooler between clients and server.
	Pooled bool
	// Clock: it needs a server whose clock can be set, and sets it.
	Clock bool
	// Disk: it needs a server with a small disk of its own, and fills it.
	Disk bool
	// Middle: it needs a bad pooler between each client and the rest.
	Middle bool
	// Long: clients also take locks with long leases. A client that is killed or stopped would keep
	// such a lock from all others, so no mixture has them.
	Long bool
	// Prepare is SQL to be run before the clients start.
	Prepare string
	// Begin is called before the clients start.
	Begin func(c *cluster.Cluster, r *rand.Rand)
	// Bears is what may happen although the library can bear the fault; nil if it can't. A mixture
	// has none.
	Bears *oracle.Bears
	// Waits: clients do nothing but wait for each other.
	Waits bool
	// Harmless: it breaks nothing. Any other fault that breaks nothing proves nothing.
	Harmless bool
	// Places are where clients are to stop themselves. A run that never hit one of them proves
	// nothing. A mixture has none: its other faults may keep clients away.
	Places []string
	// Least is how long it takes to show anything.
	Least time.Duration
	// Server: it ends, halts or changes the server as a whole. Two such faults would get in each
	// other's way.
	Server bool
	// Cancels: it cancels what waits for a standby, which the server then acknowledges
	// without it (G4).
	Cancels bool
	// Stops: it stops or kills clients, which believe in nothing meanwhile.
	Stops bool
	// Alone: it is not for mixtures.
	Alone bool
	// Setup makes the servers for that many clients, where the fault needs several, and brings its
	// own Inject.
	Setup func(ctx context.Context, clients int) (Setup, error)
	// Distributed: its Setup is an engine that spreads the database over several servers, as [cluster.Engine].
	Distributed bool
	// Prunes: it prunes rows. The audit shows who deleted them.
	Prunes bool
	// Loses: it loses commits, and must show what that costs.
	Loses bool
}

// All lists the faults in the order in which they are run.
func All() []Fault {
	return []Fault{
		{Name: "none", Inject: none, Alone: true, Harmless: true},
		{Name: "wake-up", Inject: farOff, Waits: true, Alone: true, Harmless: true, Least: 5 * time.Second},
		{Name: "client-stop", Inject: stopClients, Stops: true},
		{
			Name: "client-stop-within", Inject: stopAt(mostlyBeyondTTL, traffic.PausePlaces()...),
			Places: traffic.PausePlaces(), Least: 5 * time.Second, Stops: true,
		},
		{
			Name: "writer-stop", Inject: stopAt(beyondShortTTL, mostlyUnguarded()...),
			Places: traffic.WriterPlaces(), Least: 3 * time.Second, Stops: true,
		},
		{Name: "client-kill", Inject: killClients, Stops: true},
		{Name: "net-blackhole", Inject: network(blackHole)},
		{Name: "net-reset", Inject: network(reset)},
		{Name: "net-latency", Inject: network(latency)},
		{Name: "net-late", Inject: network(late)},
		{Name: "net-late-hole", Inject: lateHoles},
		{Name: "net-slow", Inject: network(slow)},
		{Name: "net-cut", Inject: network(cut)},
		{Name: "net-one-way", Inject: network(oneWay)},
		{Name: "reply-forged", Inject: forgeReplies, Middle: true},
		{Name: "request-late", Inject: delayRequests, Middle: true, Long: true},
		{Name: "backend-terminate", Inject: sessions("pg_terminate_backend")},
		{Name: "backend-cancel", Inject: sessions("pg_cancel_backend", "active"), Cancels: true},
		{Name: "backend-kill", Inject: killBackends, Server: true, Least: 4 * time.Second},
		{Name: "server-stop", Inject: freezeServer, Server: true},
		{Name: "server-kill", Inject: killServer, Server: true},
		{Name: "postmaster-kill", Inject: killPostmaster, Server: true},
		{Name: "server-immediate", Inject: restartImmediate, Server: true},
		{Name: "server-fast", Inject: restartFast, Server: true},
		{Name: "commit-fails", Inject: failCommits},
		{Name: "leases-shortened", Inject: shortenLeases, Prepare: shorteningSQL, Alone: true},
		{Name: "rows-locked", Inject: lockRows},
		{Name: "rows-pruned", Inject: pruneRows, Prunes: true, Bears: &oracle.Bears{}},
		{Name: "row-refused", Inject: refuseRows, Least: 7 * time.Second, Bears: &oracle.Bears{Cause: refusal}},
		{Name: "rows-referenced", Inject: referToRows, Least: 4 * time.Second, Bears: &oracle.Bears{}},
		{Name: "role-timeouts", Inject: guardRows, Prepare: shortTimeouts(), Bears: &oracle.Bears{
			Losses: true, Refusals: []string{"55P03", "57014"},
		}},
		{Name: "hostile-schema", Inject: none, Prepare: hostileSchema(), Harmless: true, Bears: &oracle.Bears{}},
		{Name: "reader-in-pool", Inject: keepReaders, Middle: true, Begin: makeReaders, Alone: true, Bears: &oracle.Bears{}},
		{Name: "old-transaction", Inject: oldTransaction},
		{Name: "pool-exhausted", Inject: exhaustPools, Least: 4 * time.Second},
		{Name: "pooler", Inject: none, Pooled: true, Alone: true, Harmless: true, Bears: &oracle.Bears{}},
		{Name: "pooler-restart", Inject: restartPooler, Pooled: true},
		{Name: "clock-steps", Inject: stepClock, Clock: true, Server: true},
		{Name: "clock-back", Inject: setClockBack, Clock: true, Server: true},
		{Name: "clock-strobe", Inject: strobeClock, Clock: true, Server: true},
		{Name: "disk-full", Inject: fillDisk, Disk: true, Server: true},
	}
}

// Control makes the pauses that show what exclusion alone is worth.
func Control() Fault {
	places := traffic.UnfencedPlaces()

	return Fault{Name: "control", Inject: stopAt(beyondShortTTL, places...), Places: places, Stops: true}
}

// Missing is what this machine lacks for the fault, as far as that is known before the run, or nil.
func (f Fault) Missing() error { return cluster.Missing(f.Pooled, f.Clock, f.Disk) }

// Mixture draws that many parts from the faults that will do, to happen at the same time. One at
// most is done to the server as a whole.
func Mixture(r *rand.Rand, parts int, will func(Fault) bool) Fault {
	return mix("mixture", draw(r, parts, func(f Fault) bool { return !f.Alone && will(f) }))
}

// Any fault will do.
func Any(Fault) bool { return true }

// draw takes that many of the faults that will do, in r's order.
func draw(r *rand.Rand, parts int, will func(Fault) bool) []Fault {
	var (
		drawn  []Fault
		server bool
		all    = All()
	)

	for _, n := range r.Perm(len(all)) {
		f := all[n]
		if !will(f) || f.Server && server || len(drawn) == parts {
			continue
		}

		server = server || f.Server
		drawn = append(drawn, f)
	}

	return drawn
}

// mix makes one fault of several, which needs what they need.
func mix(name string, faults []Fault) Fault {
	mixed := Fault{Name: name}
	names := make([]string, 0, len(faults))

	for _, f := range faults {
		names = append(names, f.Name)
		mixed.Pooled = mixed.Pooled || f.Pooled
		mixed.Clock = mixed.Clock || f.Clock
		mixed.Disk = mixed.Disk || f.Disk
		mixed.Middle = mixed.Middle || f.Middle
		mixed.Prepare += f.Prepare
		mixed.Server = mixed.Server || f.Server
		mixed.Least = max(mixed.Least, f.Least)
		mixed.Stops = mixed.Stops || f.Stops
		mixed.Prunes = mixed.Prunes || f.Prunes
	}

	mixed.With = strings.Join(names, ", ")

	mixed.Inject = func(ctx context.Context, c *cluster.Cluster, r *rand.Rand) error {
		var (
			wait sync.WaitGroup
			errs = make([]error, len(faults))
		)

		for i, f := range faults {
			own := rand.New(rand.NewPCG(r.Uint64(), r.Uint64()))

			wait.Go(func() { errs[i] = f.Inject(ctx, c, own) })
		}

		wait.Wait()

		return errors.Join(errs...)
	}

	return mixed
}

func none(ctx context.Context, _ *cluster.Cluster, _ *rand.Rand) error {
	<-ctx.Done()

	return nil
}

// beyondTTL is a pause that no lease survives.
func beyondTTL(r *rand.Rand) time.Duration {
	return traffic.MaxTTL + between(r, 50, 400)
}

// between is a random number of milliseconds.
func between(r *rand.Rand, least, most int) time.Duration {
	return time.Duration(least+r.IntN(most-least)) * time.Millisecond
}

// rest waits, and is false if ctx ended before.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func anyClient(c *cluster.Cluster, r *rand.Rand) *cluster.Client {
	return c.Clients[r.IntN(len(c.Clients))]
}
