package faulttest

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestStorm: many wait for one lock, in several processes, and most leave after a
// moment, whatever is under way for them then. No grant is lost with them, which
// would hold the lock for the TTL, and no wake-up: the lock never rests for long.
func TestStorm(t *testing.T) {
	for _, test := range []struct {
		name, columns string
		// rest is the longest time without a grant, on a machine that doesn't stand still.
		rest time.Duration
		// saboteur: the connections that listen are ended all the time.
		saboteur bool
	}{
		{name: "Listening", rest: time.Second},
		{name: "Polling", columns: contract.ThreeColumns, rest: time.Second},
		// Who waits may sleep on for as long as a mark is not renewed.
		{name: "ListenerLost", rest: 5 * time.Second, saboteur: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newStorm(t, test.columns)
			s.run(t, max(4*time.Second, 2*test.rest), test.rest, test.saboteur)
		})
	}
}

const (
	stormProcesses = 4
	// stormWaiters is how many wait in each process. Half of them are patient.
	stormWaiters = 8
	stormTTL     = 30 * time.Second
)

type storm struct {
	url     string
	lockers []*pglocker.Locker
	machine *contract.Machine

	holders   atomic.Int32
	lastToken atomic.Int64
	// lastGrant is when the lock was last granted, in nanoseconds.
	lastGrant                                  atomic.Int64
	patientGrants, hastyGrants, left, listened atomic.Int64
}

func newStorm(t *testing.T, columns string) *storm {
	t.Helper()

	s := &storm{url: contract.NewDatabase(t)}
	db := contract.Open(t, "pgx", s.url)

	contract.MakeTable(t, db, columns)
	s.machine = contract.WatchMachine(t, db)

	for range stormProcesses {
		db := contract.Open(t, "pgx", s.url)
		db.SetMaxOpenConns(4)
		db.SetMaxIdleConns(4)

		s.lockers = append(s.lockers, contract.WatchedLocker(t, db, nil))
	}

	return s
}

func (s *storm) run(t *testing.T, length, rest time.Duration, saboteur bool) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()

	var group sync.WaitGroup

	s.lastGrant.Store(time.Now().UnixNano())

	for _, locker := range s.lockers {
		for i := range stormWaiters {
			group.Go(func() {
				for ctx.Err() == nil {
					s.wait(ctx, t, locker, i%2 == 0)
				}
			})
		}
	}

	group.Go(func() { s.watch(ctx, t, rest) })

	if saboteur {
		group.Go(func() { s.sabotage(ctx, t) })
	}

	group.Wait()

	t.Logf("granted %d times to the patient and %d times to others, who left %d times; %d listeners ended",
		s.patientGrants.Load(), s.hastyGrants.Load(), s.left.Load(), s.listened.Load())

	// No call waits any more, and nothing stands in the way.
	began := time.Now()

	lock, err := contract.WatchedLocker(t, contract.Open(t, "pgx", s.url), nil).Lock(t.Context(), "a", stormTTL)
	if err != nil {
		t.Fatal(err)
	}

	if took, stood := time.Since(began), s.machine.Stood(began, time.Now()); took > rest+stood {
		t.Errorf("after the storm the lock could be had in %s; the machine stood still for %s of that", took, stood)
	}

	if err := lock.Unlock(t.Context()); err != nil {
		t.Error(err)
	}

	if s.patientGrants.Load() == 0 || s.hastyGrants.Load() == 0 || s.left.Load() == 0 || saboteur && s.listened.Load() == 0 {
		t.Error("that was no storm")
	}
}

// wait waits once, and holds the lock for no time at all.
func (s *storm) wait(ctx context.Context, t *testing.T, locker *pglocker.Locker, patient bool) {
	granted := &s.patientGrants

	if !patient {
		granted = &s.hastyGrants

		var cancel context.CancelFunc

		ctx, cancel = context.WithTimeout(ctx, rand.N(10*time.Millisecond))
		defer cancel()
	}

	lock, err := locker.Lock(ctx, "a", stormTTL)

	switch {
	case err == nil:
	case errors.Is(err, context.DeadlineExceeded):
		s.left.Add(1)

		return
	default:
		t.Error(err)

		return
	}

	if s.holders.Add(1) != 1 {
		t.Error("two hold the lock")
	}

	if last := s.lastToken.Swap(lock.Token()); last >= lock.Token() {
		t.Errorf("token %d after %d", lock.Token(), last)
	}

	granted.Add(1)
	s.lastGrant.Store(time.Now().UnixNano())
	s.holders.Add(-1)

	if err := lock.Unlock(context.WithoutCancel(ctx)); err != nil {
		t.Error(err)
	}
}

// watch fails the test when the lock rests for too long.
func (s *storm) watch(ctx context.Context, t *testing.T, rest time.Duration) {
	tick := time.NewTicker(rest / 20)
	defer tick.Stop()

	for {
		select {
		case <-tick.C:
			last := time.Unix(0, s.lastGrant.Load())
			if idle, stood := time.Since(last), s.machine.Stood(last, time.Now()); idle > rest+stood {
				t.Errorf("the lock was not granted for %s; the machine stood still for %s of that", idle, stood)

				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// sabotage ends every connection that listens, again and again.
func (s *storm) sabotage(ctx context.Context, t *testing.T) {
	db := contract.Open(t, "pgx", s.url)
	tick := time.NewTicker(50 * time.Millisecond)

	defer tick.Stop()

	for {
		select {
		case <-tick.C:
			var ended int64

			err := db.QueryRowContext(ctx, `SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
				WHERE datname = current_database() AND query LIKE 'LISTEN%'`).Scan(&ended)
			if err != nil && ctx.Err() == nil {
				t.Error(err)
			}

			s.listened.Add(ended)
		case <-ctx.Done():
			return
		}
	}
}
