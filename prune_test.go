package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

var isolations = []string{"read committed", "repeatable read", "serializable"}

// isolate has all later connections to the database begin transactions at that level.
func isolate(t *testing.T, admin *sql.DB, level string) {
	t.Helper()
	contract.Exec(t, admin, fmt.Sprintf(`DO $$ BEGIN
		EXECUTE format('ALTER DATABASE %%I SET default_transaction_isolation = %%L', current_database(), '%s');
	END $$`, level))
}

// sqlPauseInserts has the inserts of the owner "slow" wait, after they have read what they insert, and before they
// see whether the row is there.
const sqlPauseInserts = `
CREATE FUNCTION public.pause() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF NEW.owner LIKE 'slow#%' THEN
		PERFORM pg_advisory_xact_lock(42);
	END IF;
	RETURN NEW;
END $$;
CREATE TRIGGER pause BEFORE INSERT ON pglocker.lock_statuses FOR EACH ROW EXECUTE FUNCTION public.pause()`

// TestPruneMeetsFirstGrant: a first grant is under way, and has looked for the watermark. Meanwhile another client is
// granted the lock and releases it, and its row is to be pruned. The first grant must not get a token again that the
// other had. It may have found no watermark, or one that is about to be raised.
func TestPruneMeetsFirstGrant(t *testing.T) {
	t.Parallel()

	for _, level := range isolations {
		for _, first := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, first prune %t", level, first), func(t *testing.T) {
				t.Parallel()
				testPruneMeetsFirstGrant(t, level, first)
			})
		}
	}
}

func testPruneMeetsFirstGrant(t *testing.T, level string, first bool) {
	ctx := t.Context()
	databaseURL := contract.NewDatabase(t)
	admin := contract.Open(t, "pgx", databaseURL)
	contract.MakeTable(t, admin, "")
	contract.Exec(t, admin, sqlPauseInserts)

	isolate(t, admin, level)

	quick := contract.NewCounted(t, databaseURL, nil, 3)

	if !first {
		contract.Must(t, contract.Second(quick.Locker.Prune(ctx, 0)))
	}

	slow, err := pglocker.New(contract.Open(t, "pgx", databaseURL), &pglocker.Config{Owner: "slow"})
	contract.Must(t, err)
	t.Cleanup(func() { contract.CloseLocker(t, slow) })

	pause, err := admin.BeginTx(ctx, nil)
	contract.Must(t, err)
	defer func() { _ = pause.Rollback() }()

	_, err = pause.ExecContext(ctx, "SELECT pg_advisory_xact_lock(42)")
	contract.Must(t, err)

	granted := make(chan *pglocker.LockStatus, 1)

	go func() {
		status, err := slow.AcquireLock(context.WithoutCancel(ctx), "a", time.Minute)
		if err != nil {
			t.Error(err)
		}

		granted <- status
	}()

	contract.Await(t, "the first grant waits in the trigger", func() bool { return contract.RowWaits(t, admin) == 1 })

	status, err := quick.Locker.AcquireLock(ctx, "a", time.Minute)
	contract.Must(t, err)
	contract.Must(t, quick.Locker.ReleaseLock(ctx, status))

	var (
		pruned = make(chan error, 1)
		done   atomic.Bool
		before = quick.Statements.Load()
	)

	go func() {
		pruned <- contract.Second(quick.Locker.Prune(context.WithoutCancel(ctx), 0))

		done.Store(true)
	}()

	// Unhindered it sends seven, or eight with the one that makes the watermark.
	contract.Await(t, "the prune tries again and again", func() bool { return done.Load() || quick.Statements.Load()-before > 16 })

	if done.Load() {
		t.Error("the row was pruned while a first grant was under way")
	}

	contract.Must(t, pause.Rollback())

	next := contract.Receive(t, "the slow client is granted the lock", granted)
	if next != nil && next.Generation <= status.Generation+1 {
		t.Errorf("token %d, and a release before left the generation %d", next.Generation, status.Generation+1)
	}

	contract.Must(t, contract.Receive(t, "the prune ends", pruned))
}

// TestPruneRace: clients take and release a few locks while others prune them away. The tokens of each lock grow, and
// beyond the generations that releases leave.
func TestPruneRace(t *testing.T) {
	t.Parallel()

	for _, level := range isolations {
		for _, columns := range []string{"", contract.ThreeColumns} {
			t.Run(fmt.Sprintf("%s, %q", level, columns), func(t *testing.T) {
				t.Parallel()
				testPruneRace(t, level, columns)
			})
		}
	}
}

func testPruneRace(t *testing.T, level, columns string) {
	const (
		ids     = 3
		clients = 4
		pruners = 2
		grants  = 300
		prunes  = 60
	)

	databaseURL := contract.NewDatabase(t)
	admin := contract.Open(t, "pgx", databaseURL)
	contract.MakeTable(t, admin, columns)
	isolate(t, admin, level)

	var (
		last           [ids]atomic.Int64 // the generation that the last release left
		granted, again atomic.Int64
		removed        atomic.Int64
		over           = make(chan struct{})
		once           sync.Once
		group          sync.WaitGroup
	)

	finish := func() bool {
		if t.Failed() || granted.Load() >= grants && removed.Load() >= prunes {
			once.Do(func() { close(over) })
		}

		select {
		case <-over:
			return true
		default:
			return false
		}
	}

	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()

	open := func() *pglocker.Locker {
		db, err := sql.Open("pgx", databaseURL)
		contract.Must(t, err)

		return newLockerOn(t, db)
	}

	for c := range clients {
		locker := open()

		group.Go(func() {
			for i := c; !finish(); i++ {
				id := i % ids

				status, err := locker.AcquireLock(ctx, fmt.Sprint("lock ", id), time.Minute)
				if errors.Is(err, pglocker.ErrAlreadyLocked) {
					again.Add(1)

					continue
				}

				if err != nil {
					t.Error(err)

					return
				}

				if was := last[id].Swap(status.Generation + 1); status.Generation <= was {
					t.Errorf("lock %d was granted with token %d, and had generation %d before", id, status.Generation, was)
				}

				granted.Add(1)

				if err := locker.ReleaseLock(ctx, status); err != nil {
					t.Error(err)

					return
				}
			}
		})
	}

	for range pruners {
		locker := open()

		group.Go(func() {
			for !finish() {
				n, err := locker.Prune(ctx, 0)
				if err != nil {
					t.Error(err)

					return
				}

				removed.Add(n)
			}
		})
	}

	group.Wait()
	t.Logf("%d grants, %d refused, %d rows pruned", granted.Load(), again.Load(), removed.Load())
}

// newLockerOn is a locker on the table that is there, over a handle that is closed with it.
func newLockerOn(t *testing.T, db *sql.DB) *pglocker.Locker {
	t.Helper()
	t.Cleanup(func() { contract.Must(t, db.Close()) })

	locker, err := pglocker.New(db, &pglocker.Config{})
	contract.Must(t, err)
	t.Cleanup(func() { contract.CloseLocker(t, locker) })

	return locker
}
