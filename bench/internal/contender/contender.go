// Package contender has every way of locking that is measured, behind one interface.
package contender

import (
	"context"
	"errors"
	"net"
	"strconv"
	"sync"
	"time"
)

// TTL is the TTL of every lease in every workload.
const TTL = 30 * time.Second

// ErrHeld: another client holds the lock.
var ErrHeld = errors.New("bench: the lock is held")

type Contender interface {
	Name() string
	// OnPostgres reports whether PostgreSQL's own counters tell what it costs.
	OnPostgres() bool
	// CPU is what its server has used so far. It returns false if the system doesn't tell.
	CPU() (time.Duration, bool)
	// Open makes a client, which stands for one process.
	Open(ctx context.Context, o Options) (Client, error)
}

// Options are those of one client. No contender uses all of them.
type Options struct {
	// Pool is the size of its pool of connections; 0: as the driver has it.
	Pool int
	// Waiters is how many goroutines call Acquire at once.
	Waiters int
	// Poll is the pause between the attempts of a contender that polls.
	Poll time.Duration
	// Statements, if not nil, is called with each statement to PostgreSQL, and with one for those that are sent
	// together.
	Statements func(text string)
	// Dial, if not nil, opens the connections to PostgreSQL.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Client is safe for concurrent use.
type Client interface {
	// TryAcquire takes a free lock, or returns ErrHeld.
	TryAcquire(ctx context.Context, id string) (Release, error)
	Acquire(ctx context.Context, id string) (Release, error)
	Close() error
}

type Release func(ctx context.Context) error

// Keeper is a client that can hold locks for longer than their TTL.
type Keeper interface {
	Client
	Keep(ctx context.Context, id string) (Kept, error)
}

// Kept is a lock that is held until its release.
type Kept struct {
	// Renew is nil if the client renews by itself. Otherwise the benchmark renews after
	// each third of the TTL, evenly spread.
	Renew func(ctx context.Context) error
	// Release is nil if Close releases the lock.
	Release Release
}

// ID is the name of the nth lock of a table. The first are made once: a pair of them allocates nothing for it.
func ID(n int) string {
	if first := firstIDs(); n < len(first) {
		return first[n]
	}

	return newID(n)
}

func newID(n int) string { return "lock-" + strconv.Itoa(n) }

var firstIDs = sync.OnceValue(func() []string {
	ids := make([]string, 10_000)
	for n := range ids {
		ids[n] = newID(n)
	}

	return ids
})

func polling(ctx context.Context, pause time.Duration, try func() (Release, error)) (Release, error) {
	for {
		release, err := try()
		if !errors.Is(err, ErrHeld) {
			return release, err
		}

		timer := time.NewTimer(pause)

		select {
		case <-ctx.Done():
			timer.Stop()

			return nil, ctx.Err()
		case <-timer.C:
		}
	}
}
