package pglocker_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// deadlines are until when statements are waited for.
type deadlines struct {
	mu     sync.Mutex
	bounds []time.Time
}

func (d *deadlines) add(ctx context.Context) {
	if bound, ok := ctx.Deadline(); ok {
		d.mu.Lock()
		defer d.mu.Unlock()

		d.bounds = append(d.bounds, bound)
	}
}

// takeAll returns those since the last call.
func (d *deadlines) takeAll() []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()

	bounds := d.bounds
	d.bounds = nil

	return bounds
}

// TestShortLeasesAreGivenTime: a request is not given up at once because a lease is short. It
// costs a connection, and behind a pooler two: who gives up sooner than a slow one answers,
// and asks again, keeps it slow.
func TestShortLeasesAreGivenTime(t *testing.T) {
	t.Parallel()

	const (
		ttl = 100 * time.Millisecond
		// least is less than what they are given: a renewal may be under way since before.
		least = 300 * time.Millisecond
	)

	var (
		ctx  = t.Context()
		seen = new(deadlines)
		held *pglocker.Lock
	)

	cfg, err := pgx.ParseConfig(newDatabase(t))
	must(t, err)

	cfg.Tracer = onStatement(seen.add)

	locker := newLockerOver(t, stdlib.OpenDB(*cfg))

	claim := func() {
		_, err := locker.AcquireLock(ctx, "a", ttl) // so that there is something to wait for
		if !errors.Is(err, pglocker.ErrAlreadyLocked) {
			must(t, err)
		}

		seen.takeAll()

		for held, err = locker.Lock(ctx, "a", ttl); errors.Is(err, pglocker.ErrLockLost); { // on a machine that stood still
			held, err = locker.Lock(ctx, "a", ttl)
		}

		must(t, err)
	}

	for _, request := range []struct {
		purpose string
		send    func()
	}{
		{"claim the lock", claim},
		{"release it", func() {
			for errors.Is(held.Unlock(ctx), pglocker.ErrLockLost) { // the same
				claim()
			}
		}},
		{"give it back", func() { locker.GiveBack("a", locker.GrantName(), ttl) }},
	} {
		seen.takeAll()

		since := time.Now()

		request.send()

		var bounds []time.Time

		contract.Await(t, "a request is sent to "+request.purpose, func() bool {
			bounds = append(bounds, seen.takeAll()...)

			return len(bounds) > 0
		})

		for _, bound := range bounds {
			if got := bound.Sub(since); got < least {
				t.Errorf("a request to %s was to be given up %s after the call", request.purpose, got)
			}
		}
	}
}
