package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// gathering is a call for the locks a and b. It has a, and waits for b, which other holds.
type gathering struct {
	direct  *sql.DB
	other   *pglocker.Locker
	held    *pglocker.Lock
	watcher *contract.Watcher
	cancel  context.CancelFunc
	done    chan error
}

func startGathering(t *testing.T) *gathering {
	t.Helper()

	url := contract.NewDatabase(t)
	g := &gathering{
		direct: contract.Open(t, "pgx", url), other: contract.NewLocker(t, "pgx", url),
		watcher: contract.NewWatcher(), done: make(chan error, 1),
	}

	var err error

	g.held, err = g.other.TryLock(t.Context(), "b", time.Minute)
	contract.Must(t, err)

	db := contract.Open(t, "pgx", url)
	db.SetMaxIdleConns(0) // each statement meets the settings of its time

	locker := contract.WatchedLocker(t, db, g.watcher)
	locker.SetGatherAfter(time.Millisecond)

	var ctx context.Context

	ctx, g.cancel = context.WithCancel(t.Context())
	t.Cleanup(g.cancel)

	go func() {
		multi, err := locker.LockAll(ctx, []string{"a", "b"}, time.Minute, pglocker.WithRelockInterval(20*time.Millisecond))
		if err == nil {
			err = multi.Unlock(context.WithoutCancel(ctx))
		}

		g.done <- err
	}()

	contract.Await(t, "it gathers", func() bool { return areHeld(t, g.direct, "a") == 1 || len(g.done) > 0 })

	return g
}

// TestGatheringLoses: what was gathered is lost. The call goes on, and gets both locks when they are free.
func TestGatheringLoses(t *testing.T) {
	t.Parallel()

	g := startGathering(t)

	// Rounds become longer. This one has lasted for some renewals, and lasts for as long again.
	var (
		began = time.Now()
		token int64
		since time.Time
	)

	contract.Await(t, "a long round", func() bool {
		status, err := g.other.GetLockStatus(t.Context(), "a")
		contract.Must(t, err)

		if status.Generation != token {
			token, since = status.Generation, time.Now()
		}

		return time.Since(since) > 100*time.Millisecond && since.Sub(began) > 500*time.Millisecond && status.Owner != ""
	})
	contract.Must(t, g.other.ForceRelease(t.Context(), "a", token, "a test"))
	contract.Await(t, "a loss", func() bool { return len(g.watcher.Lost("a")) > 0 || len(g.done) > 0 })

	contract.Must(t, g.held.Unlock(t.Context()))

	if err := contract.Receive(t, "LockAll returns", g.done); err != nil {
		t.Errorf("LockAll: %v", err)
	}
}

// TestGatheringCancelled: the context ends while the database doesn't take back what was gathered. The call
// returns all the same, and the locks are released later.
func TestGatheringCancelled(t *testing.T) {
	t.Parallel()

	g := startGathering(t)
	set := func(value string) {
		name := contract.Query[string](t, g.direct, "SELECT current_database()")
		contract.Exec(t, g.direct, fmt.Sprintf("ALTER DATABASE %q SET default_transaction_read_only = %s", name, value))
	}

	g.direct.SetMaxOpenConns(1) // one that may write
	set("on")
	contract.Await(t, "a release under way", func() bool { return g.watcher.UnderWay(pglocker.OperationRelease) })
	g.cancel()

	if err := contract.Receive(t, "LockAll returns", g.done); !errors.Is(err, context.Canceled) {
		t.Errorf("LockAll: %v, want context.Canceled", err)
	}

	set("off")
	contract.Await(t, "the lock is free", func() bool { return areHeld(t, g.direct, "a") == 0 })
}
