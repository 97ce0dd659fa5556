package contract

import (
	"context"
	"database/sql"
	"sync"
	"testing"
	"time"
)

// Machine knows for how long the machine stood still, for tests of how long something takes on a machine that
// others use, too.
type Machine struct {
	mu     sync.Mutex
	stalls []stall // the last of them goes on
}

// stall is a statement that took that long, or a process that slept for so much longer than it wanted to.
type stall struct{ from, to time.Time }

// stalled is from when on it is one.
const stalled = 50 * time.Millisecond

// WatchMachine makes a durable statement every ten milliseconds until the test ends. It makes a table.
func WatchMachine(tb testing.TB, db *sql.DB) *Machine {
	tb.Helper()
	Exec(tb, db, "CREATE TABLE ticks (n INT)")
	Exec(tb, db, "INSERT INTO ticks VALUES (0)")

	var (
		m         = new(Machine)
		done      sync.WaitGroup
		ctx, stop = context.WithCancel(context.Background())
	)

	done.Go(func() {
		for ctx.Err() == nil {
			m.note(time.Now().Add(10 * time.Millisecond))
			time.Sleep(10 * time.Millisecond)

			_, err := db.ExecContext(ctx, "UPDATE ticks SET n = n + 1")
			if err != nil && ctx.Err() == nil {
				tb.Error(err)
			}
		}
	})

	tb.Cleanup(func() {
		stop()
		done.Wait()
	})

	return m
}

// note ends a stall, and begins one that lasts until the next call. None has lasted before from.
func (m *Machine) note(from time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()

	if last := len(m.stalls) - 1; last >= 0 {
		m.stalls[last].to = time.Now()
	}

	m.stalls = append(m.stalls, stall{from: from})
}

// Stood is for how long the machine stood still between two moments.
func (m *Machine) Stood(from, to time.Time) (all time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()

	for _, s := range m.stalls {
		if ended := s.to; ended.IsZero() && time.Since(s.from) < stalled || !ended.IsZero() && ended.Sub(s.from) < stalled {
			continue
		}

		if s.from.Before(from) {
			s.from = from
		}

		if s.to.IsZero() || s.to.After(to) {
			s.to = to
		}

		all += max(s.to.Sub(s.from), 0)
	}

	return all
}
