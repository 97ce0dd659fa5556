package faulttest

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestLockOverADeadConnection: the first connection that Lock asks over may be dead
// without anybody knowing. It asks again over another, as it does while it waits.
func TestLockOverADeadConnection(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		// On three columns the grant whose reply is lost stays until its end.
		const ttl = 8 * time.Second

		var lost atomic.Bool

		l.proxy.onAnswer(func() fate {
			if lost.CompareAndSwap(false, true) {
				return mute
			}

			return pass
		})

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()

		lock, err := l.locker.Lock(ctx, "a", ttl)
		if err != nil {
			t.Fatalf("Lock: %v", err)
		}

		if !lost.Load() {
			t.Error("no answer was lost: not what was to be tested")
		}

		contract.Must(t, lock.Unlock(ctx))
	})
}

// TestCloseAndTheFirstRequest: Close doesn't wait for the context of a Lock whose first
// request isn't answered, no more than of one that has waited for longer.
func TestCloseAndTheFirstRequest(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			ctx    = t.Context()
			url    = contract.NewDatabase(t)
			locker = contract.NewLocker(t, driver, url)
			direct = contract.Open(t, "pgx", url)
			done   = make(chan error, 1)
		)

		_, err := locker.CreateLock(ctx, "a")
		contract.Must(t, err)

		contract.LockRows(t, direct, "%")

		go func() {
			_, err := locker.Lock(ctx, "a", time.Minute)
			done <- err
		}()

		contract.Await(t, "the request waits for the row", func() bool {
			return contract.RowWaits(t, direct) > 0
		})

		began := time.Now()

		contract.Must(t, locker.Close(ctx))

		// It has a second, in which an answer may still come.
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("Close took %s", took)
		}

		if err := contract.Receive(t, "Lock returns", done); !errors.Is(err, pglocker.ErrClosed) {
			t.Errorf("Lock: %v, want ErrClosed", err)
		}
	})
}

// TestRefusedHandOver: where a lock can't be handed over to who waits in the same Locker,
// it is looked at when its lease is over. Who waits has not asked the database before.
func TestRefusedHandOver(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = 4 * time.Second

		var (
			ctx    = t.Context()
			w      = contract.NewWatcher()
			url    = contract.NewDatabase(t)
			direct = contract.Open(t, "pgx", url)
			locks  = make(chan *pglocker.Lock, 2)
		)

		contract.Must(t, pglocker.MigrateDB(ctx, direct, &pglocker.Config{}))

		locker := contract.WatchedLocker(t, contract.Open(t, driver, url), w)

		first, err := locker.TryLock(ctx, "a", ttl)
		contract.Must(t, err)

		for range 2 {
			go func() {
				lock, err := locker.Lock(ctx, "a", ttl)
				if err != nil {
					t.Error(err)
				}

				locks <- lock
			}()
			contract.Receive(t, "somebody waits", w.InLine())
		}

		contract.Must(t, first.Unlock(ctx))

		// Who is head of the line now knows that the lock is held here, and sleeps.
		second := contract.Receive(t, "the first in line has the lock", locks)

		// Not a lock timeout: a look of who waits must be answered.
		contract.Exec(t, direct, `CREATE FUNCTION pglocker.refuse() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN RAISE EXCEPTION ''no hand-over''; END'`)
		contract.Exec(t, direct, `CREATE TRIGGER refuse BEFORE UPDATE ON pglocker.lock_statuses FOR EACH ROW
			WHEN (old.owner <> new.owner AND old.expires_at > clock_timestamp()) EXECUTE FUNCTION pglocker.refuse()`)

		if err := second.Unlock(ctx); !errors.Is(err, pglocker.ErrNotReleased) {
			t.Fatalf("Unlock: %v, want ErrNotReleased: the hand-over is refused", err)
		}

		unlocked := time.Now()

		third := contract.Receive(t, "the next has the lock", locks)
		if took := time.Since(unlocked); took > ttl+2*time.Second {
			t.Errorf("a lock whose lease ended within %s was granted to who waited after %s", ttl, took)
		}

		contract.Must(t, third.Unlock(ctx))
	})
}

// TestWaitBesideTrouble: the server goes away during a wait. The waiter's error says what it saw
// last, how long ago that was, and what has been in the way since.
func TestWaitBesideTrouble(t *testing.T) {
	t.Parallel()

	const (
		ttl  = time.Minute
		wait = 4 * time.Second
	)

	eachLossy(t, func(t *testing.T, l *lossy) {
		_, err := l.direct.ExecContext(t.Context(), `UPDATE pglocker.lock_statuses
			SET generation = 7, expires_at = clock_timestamp() + interval '10 seconds'`)
		contract.Must(t, err)

		other, err := pglocker.New(l.db, l.cfg)
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, other) })

		// The first request looks at the table, which takes seconds on a busy machine. The waits begin after that.
		for _, locker := range []*pglocker.Locker{l.locker, other} {
			if _, err := locker.TryLock(t.Context(), "a", ttl); !errors.Is(err, pglocker.ErrAlreadyLocked) {
				t.Fatalf("TryLock: %v, want ErrAlreadyLocked", err)
			}
		}

		ctx, cancel := context.WithTimeout(t.Context(), wait)
		defer cancel()

		failed := map[string]chan error{"Lock": make(chan error, 1), "TryLock": make(chan error, 1)}

		go func() {
			_, err := l.locker.Lock(ctx, "a", ttl)
			failed["Lock"] <- err
		}()

		go func() {
			_, err := other.TryLock(t.Context(), "a", ttl, pglocker.WithWait(wait))
			failed["TryLock"] <- err
		}()

		for range 2 {
			contract.Receive(t, "both wait", l.watcher.InLine())
		}

		_ = l.proxy.listener.Close()
		l.proxy.cutAll()

		for verb, failed := range failed {
			var held *pglocker.HeldError

			err := contract.Receive(t, verb+" fails", failed)

			switch {
			case !errors.As(err, &held) || held.Generation != 7:
				t.Errorf("%s: %v, want a HeldError", verb, err)
			case held.Age < 2*time.Second || held.Remaining > 10*time.Second-held.Age:
				t.Errorf("%s: %v: seen %s ago, and %s remain", verb, err, held.Age, held.Remaining)
			case !strings.Contains(err.Error(), "when it was last seen "):
				t.Errorf("%s: %v, want it said how old this is", verb, err)
			}

			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("%s: %v, want ECONNREFUSED", verb, err)
			}

			if errors.Is(err, context.DeadlineExceeded) != (verb == "Lock") || errors.Is(err, pglocker.ErrUnknownOutcome) {
				t.Errorf("%s: %v, want its own deadline, and no other", verb, err)
			}
		}
	})
}
