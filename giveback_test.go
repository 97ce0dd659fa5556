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

// TestGiveBacksShareAStatement: while a row is locked for long, every request that waits
// for it in vain leaves a grant to be given back. However many they are, one statement
// waits for the row, and it frees whichever of them comes to be granted.
func TestGiveBacksShareAStatement(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const grants = 20

		var (
			ctx    = t.Context()
			url    = contract.NewDatabase(t)
			locker = contract.NewLocker(t, driver, url)
			direct = contract.Open(t, "pgx", url)
			names  []string
		)

		created, err := locker.CreateLock(ctx, "a")
		contract.Must(t, err)

		stranger := contract.LockRows(t, direct, "%")

		for range grants {
			names = append(names, locker.GrantName())
			locker.GiveBack("a", names[len(names)-1], time.Minute)
		}

		contract.Await(t, "the row is waited for", func() bool { return contract.RowWaits(t, direct) > 0 })

		// Each on its own would have come as far: all began at the same time.
		for range 20 {
			if n := contract.RowWaits(t, direct); n > 1 {
				t.Fatalf("%d statements wait for the row to give %d grants back, want one", n, grants)
			}
		}

		// The one that is on its way comes through.
		_, err = stranger.ExecContext(ctx, `UPDATE pglocker.lock_statuses
			SET generation = 2, owner = $1, expires_at = clock_timestamp() + interval '1 hour'`, names[grants/2])
		contract.Must(t, err)
		contract.Must(t, stranger.Commit())

		contract.Await(t, "it is given back", func() bool {
			status, err := locker.GetLockStatus(ctx, "a")
			contract.Must(t, err)

			return status.Owner == "" && status.Generation > created.Generation+1
		})

		// What comes later, when all that was there is settled, is given back as well.
		status, err := locker.AcquireLock(ctx, "a", time.Hour)
		contract.Must(t, err)
		locker.GiveBack("a", status.Owner, time.Minute)

		contract.Await(t, "another is given back", func() bool {
			now, err := locker.GetLockStatus(ctx, "a")
			contract.Must(t, err)

			return now.Owner == ""
		})
	})
}

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

	cfg, err := pgx.ParseConfig(contract.NewDatabase(t))
	contract.Must(t, err)

	cfg.Tracer = contract.OnStatement(seen.add)

	locker := contract.NewLockerOver(t, stdlib.OpenDB(*cfg))

	claim := func() {
		_, err := locker.AcquireLock(ctx, "a", ttl) // so that there is something to wait for
		if !errors.Is(err, pglocker.ErrAlreadyLocked) {
			contract.Must(t, err)
		}

		seen.takeAll()

		for held, err = locker.Lock(ctx, "a", ttl); errors.Is(err, pglocker.ErrLockLost); { // on a machine that stood still
			held, err = locker.Lock(ctx, "a", ttl)
		}

		contract.Must(t, err)
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
