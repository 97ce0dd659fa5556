package faulttest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
)

// TestLockAfterTheCallerLeft: Lock's first request waits for the row when its
// caller leaves, and nobody can tell the server. The grant that comes right after
// that is given back on every table, also where it has no owner to be found by.
func TestLockAfterTheCallerLeft(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		// What a request still brings within a second is given back; a machine that
		// takes longer to get there tries once more.
		for !lockAndLeave(t, l, time.Second/2) {
			contract.Exec(t, l.direct, "UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp()")
		}
	})
}

// lockAndLeave is false if it took longer than the given time to let the row go.
func lockAndLeave(t *testing.T, l *lossy, within time.Duration) (inTime bool) {
	t.Helper()

	stranger := contract.LockRows(t, l.direct, "%")

	before, _ := l.row(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)

	go func() {
		_, err := l.locker.Lock(ctx, "a", time.Minute)
		done <- err
	}()

	contract.Await(t, "the statement waits for the row", func() bool {
		return contract.RowWaits(t, l.direct) > 0
	})
	l.proxy.refuse(true)

	left := time.Now()

	cancel()

	if err := contract.Receive(t, "Lock returns", done); !errors.Is(err, context.Canceled) {
		t.Errorf("Lock: %v, want context.Canceled", err)
	}

	contract.Must(t, stranger.Rollback())

	if time.Since(left) > within {
		l.proxy.refuse(false)

		return false
	}

	contract.Await(t, "the grant", func() bool {
		generation, _ := l.row(t)

		return generation > before
	})
	l.proxy.refuse(false)
	contract.Await(t, "the grant is given back", func() bool {
		_, held := l.row(t)

		return !held
	})

	return true
}

// TestLeaverSendsNothing: what still waits for a connection of the pool when its
// caller leaves is never sent, though what was sent goes on.
func TestLeaverSendsNothing(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		before, _ := l.row(t)
		pool := l.db
		pool.SetMaxOpenConns(1)

		busy, err := pool.Conn(t.Context())
		contract.Must(t, err)

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)

		go func() {
			_, err := l.locker.Lock(ctx, "a", time.Minute)
			done <- err
		}()

		contract.Await(t, "it waits for a connection", func() bool { return pool.Stats().WaitCount > 0 })
		cancel()

		if err := contract.Receive(t, "Lock returns", done); !errors.Is(err, context.Canceled) {
			t.Errorf("Lock: %v, want context.Canceled", err)
		}

		contract.Must(t, busy.Close())
		contract.CloseLocker(t, l.locker) // waits for what is under way

		if after, _ := l.row(t); after != before {
			t.Errorf("generation %d has become %d", before, after)
		}
	})
}
