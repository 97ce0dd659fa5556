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

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestContextEndsFirst: when the next holder has the lock, the context of the one
// before has ended.
func TestContextEndsFirst(t *testing.T) {
	t.Parallel()

	locker := newLocker(t, "pgx", newDatabase(t))

	var (
		ctx      = t.Context()
		waiters  sync.WaitGroup
		previous atomic.Pointer[pglocker.Lock]
	)

	for range 4 {
		waiters.Go(func() {
			for range 50 {
				lock, err := locker.Lock(ctx, "a", time.Minute)
				if err != nil {
					t.Error(err)

					return
				}

				if before := previous.Swap(lock); before != nil && before.Context().Err() == nil {
					t.Error("two holders believe")
				}

				if err := lock.Unlock(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}

	waiters.Wait()
}

// TestTurns: a process whose waiters hand the lock over among themselves lets
// others have it, also those that can only poll.
func TestTurns(t *testing.T) {
	t.Parallel()

	for _, setup := range []struct {
		name, driver string
		columns      string
	}{
		{"listening", "pgx", ""},
		{"polling", "postgres", ""},
		{"three columns", "pgx", contract.ThreeColumns},
	} {
		t.Run(setup.name, func(t *testing.T) {
			t.Parallel()

			var (
				url     = newDatabase(t)
				config  = &pglocker.Config{Scheme: pglocker.PublicScheme}
				direct  = contract.Open(t, "pgx", url)
				ctx     = t.Context()
				greedy  sync.WaitGroup
				granted atomic.Int64
			)

			if setup.columns == "" {
				must(t, pglocker.MigrateDB(ctx, direct, config))
			} else {
				contract.Exec(t, direct, "CREATE TABLE public.lock_statuses ("+setup.columns+")")
			}

			open := func() *pglocker.Locker {
				locker, err := pglocker.New(contract.Open(t, setup.driver, url), config)
				must(t, err)

				return locker
			}

			many, one := open(), open()
			working, stop := context.WithCancel(ctx)

			defer greedy.Wait()
			defer stop()

			for range 4 {
				greedy.Go(func() {
					for working.Err() == nil {
						lock, err := many.Lock(working, "a", time.Minute)
						if err != nil {
							return
						}

						granted.Add(1)

						if err := lock.Unlock(ctx); err != nil {
							t.Error(err)
						}
					}
				})
			}

			contract.Await(t, "the lock goes round", func() bool { return granted.Load() > 50 })

			for range 3 {
				began := time.Now()

				lock, err := one.Lock(ctx, "a", time.Minute)
				must(t, err)

				// A turn of the others is 400 ms at most and then lies free for as long;
				// not every look meets that.
				if waited := time.Since(began); waited > 10*time.Second {
					t.Errorf("the other process waited %s for its turn", waited)
				}

				must(t, lock.Unlock(ctx))
			}
		})
	}
}

// TestReleaseWakes: who waits in another process has the lock right after its
// release, without a poll, also if it has just begun to wait.
func TestReleaseWakes(t *testing.T) {
	t.Parallel()

	var (
		ctx    = t.Context()
		url    = newDatabase(t)
		holder = newLocker(t, "pgx", url)
		direct = contract.Open(t, "pgx", url)
	)

	for range 3 {
		waiter := newLocker(t, "pgx", url)
		lock, err := holder.TryLock(ctx, "a", time.Minute)
		must(t, err)

		granted := make(chan time.Time, 1)
		began := time.Now()

		go func() {
			next, err := waiter.Lock(ctx, "a", time.Minute)
			at := time.Now()

			if err == nil {
				err = next.Unlock(ctx)
			}

			if err != nil {
				t.Error(err)
			}

			granted <- at // after the Unlock, which a Close would do instead
		}()

		contract.Await(t, "the waiter asks to be notified", func() bool {
			return contract.Query[bool](t, direct, `SELECT coalesce(contended_until > clock_timestamp() + interval '5 s', false)
				FROM pglocker.lock_statuses WHERE lock_id = 'a'`)
		})

		// Not only when a mark is renewed, which is after four seconds.
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("it took %s to ask", took)
		}

		released := time.Now()

		must(t, lock.Unlock(ctx))

		// Without the notification it would look after two to four seconds.
		if took := contract.Receive(t, "the waiter has the lock", granted).Sub(released); took > time.Second {
			t.Errorf("the waiter had the lock %s after its release", took)
		}

		must(t, waiter.Close(ctx))
	}
}

// TestReleaseWakesBesidePolling: a process that polls, and comes to wait for the same lock,
// doesn't keep a release from notifying one that listens.
func TestReleaseWakesBesidePolling(t *testing.T) {
	t.Parallel()

	var (
		ctx    = t.Context()
		url    = newDatabase(t)
		holder = newLocker(t, "pgx", url)
		direct = contract.Open(t, "pgx", url)
		e      = newEar(t, url)
		locks  = make(chan *pglocker.Lock, 2)
	)

	lock, err := holder.TryLock(ctx, "a", time.Minute)
	must(t, err)

	waits := func(driver string) {
		l := newLocker(t, driver, url)

		go func() {
			lock, err := l.Lock(ctx, "a", time.Minute)
			if err != nil {
				t.Error(err)
			}

			locks <- lock
		}()
	}
	mark := func() (until string, notifies bool) {
		until = contract.Query[string](t, direct, `SELECT coalesce(contended_until::text, '') FROM pglocker.lock_statuses`)
		notifies = contract.Query[bool](t, direct, `SELECT coalesce(contended_until > clock_timestamp() + interval '5 s', false)
			FROM pglocker.lock_statuses`)

		return until, notifies
	}

	waits("pgx")

	var listening string

	contract.Await(t, "one asks to be notified", func() (notifies bool) {
		listening, notifies = mark()

		return notifies
	})

	waits("postgres") // lib/pq

	contract.Await(t, "the other leaves its mark", func() bool {
		until, _ := mark()

		return until != listening
	})

	if until, notifies := mark(); !notifies {
		t.Errorf("after the mark of who polls, a release notifies until %s, and before until %s", until, listening)
	}

	must(t, lock.Unlock(ctx))

	if got := e.heard(t); len(got) == 0 {
		t.Error("the release notified nobody")
	}

	for range 2 {
		must(t, contract.Receive(t, "one who waited has the lock", locks).Unlock(ctx))
	}
}

// TestLooksAgainWithoutAMark: a release isn't heard of by a waiter whose look should have
// left a mark and left none, so it looks again soon.
func TestLooksAgainWithoutAMark(t *testing.T) {
	t.Parallel()

	var (
		ctx, cancel = context.WithCancel(t.Context())
		url         = newDatabase(t)
		waiter      = newLocker(t, "pgx", url)
		direct      = contract.Open(t, "pgx", url)
		done        = make(chan error, 2)
	)

	defer cancel()

	// The first statement that would change the row "unmarked" finds nothing, as one does
	// in whose wait for the row the clock was set back.
	for _, text := range []string{
		`INSERT INTO pglocker.lock_statuses (lock_id, generation, expires_at, owner, acquired_at)
		 SELECT id, 2, clock_timestamp() + interval '1 minute', 'other', clock_timestamp() FROM unnest(ARRAY['marked', 'unmarked']) AS id`,
		`CREATE SEQUENCE looks`,
		`CREATE FUNCTION finds_nothing() RETURNS trigger LANGUAGE plpgsql AS $$
		 BEGIN
		     RETURN CASE WHEN nextval('looks') > 1 THEN NEW END;
		 END $$`,
		`CREATE TRIGGER finds_nothing BEFORE UPDATE ON pglocker.lock_statuses FOR EACH ROW
		 WHEN (OLD.lock_id = 'unmarked') EXECUTE FUNCTION finds_nothing()`,
	} {
		contract.Exec(t, direct, text)
	}

	waits := func(id string) {
		_, err := waiter.Lock(ctx, id, time.Minute)
		done <- err
	}
	notifies := func(id string) func() bool {
		return func() bool {
			return contract.Query[bool](t, direct, `SELECT coalesce(contended_until > clock_timestamp() + interval '5 s', false)
				FROM pglocker.lock_statuses WHERE lock_id = $1`, id)
		}
	}

	go waits("marked")

	// From then on the waiter knows that it hears notifications, and doesn't poll.
	contract.Await(t, "notifications are heard", notifies("marked"))

	go waits("unmarked")

	contract.Await(t, "it has looked", func() bool {
		return contract.Query[bool](t, direct, `SELECT is_called FROM looks`)
	})

	began := time.Now()

	contract.Await(t, "it has looked again", notifies("unmarked"))

	// Who counts on being told looks again after two seconds at the earliest.
	if took := time.Since(began); took > 1900*time.Millisecond {
		t.Errorf("it looked again after %s", took)
	}

	cancel()

	for range 2 {
		if err := contract.Receive(t, "who waited returns", done); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}

// TestWithWaitIsBounded: the time of WithWait is over when it is over, also for a
// request that hangs on a row that a stranger has locked.
func TestWithWaitIsBounded(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			ctx    = t.Context()
			url    = newDatabase(t)
			locker = newLocker(t, driver, url)
			direct = contract.Open(t, driver, url)
		)

		_, err := locker.CreateLock(ctx, "a")
		must(t, err)

		stranger := lockRows(t, direct, "%")

		// Within the time of the first request, and beyond it.
		for _, limit := range []time.Duration{300 * time.Millisecond, 6 * time.Second} {
			began := time.Now()

			_, err = locker.TryLock(ctx, "a", time.Minute, pglocker.WithWait(limit))
			if !errors.Is(err, pglocker.ErrUnknownOutcome) || errors.Is(err, pglocker.ErrAlreadyLocked) {
				t.Errorf("TryLock: %v, want an unknown outcome: nobody holds the lock", err)
			}

			if took := time.Since(began); took < limit || took > limit+3*time.Second {
				t.Errorf("TryLock waited %s for %s", took, limit)
			}
		}

		must(t, stranger.Rollback())
	})
}

// TestUnlocksShareConnections: many unlocks at once don't each open a connection
// because the pool is busy, with other unlocks above all.
func TestUnlocksShareConnections(t *testing.T) {
	t.Parallel()

	config, err := pgx.ParseConfig(newDatabase(t))
	must(t, err)

	const (
		locks = 300
		pool  = 4
	)

	var (
		ctx       = t.Context()
		connected atomic.Int64
		db        = stdlib.OpenDB(*config, stdlib.OptionBeforeConnect(func(context.Context, *pgx.ConnConfig) error {
			connected.Add(1)

			return nil
		}))
		locker = newLockerOver(t, db)
		held   []*pglocker.Lock
	)

	db.SetMaxOpenConns(pool)
	db.SetMaxIdleConns(pool)

	for i := range locks {
		lock, err := locker.TryLock(ctx, fmt.Sprint(i), time.Minute)
		must(t, err)

		held = append(held, lock)
	}

	var unlocks sync.WaitGroup

	for _, lock := range held {
		unlocks.Go(func() {
			if err := lock.Unlock(ctx); err != nil {
				t.Error(err)
			}
		})
	}

	unlocks.Wait()

	// The spare connection is closed when nobody uses it, and may be opened again.
	if n := connected.Load(); n > locks/5 {
		t.Errorf("%d connections were opened for %d unlocks, want few", n, locks)
	}
}

// newLockerOver returns a locker over a handle, which is closed when the test ends.
func newLockerOver(t *testing.T, db *sql.DB) *pglocker.Locker {
	t.Helper()
	t.Cleanup(func() { must(t, db.Close()) })

	locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
	must(t, err)

	return locker
}

// TestReleaseLockHandsOver: a lease that is released by hand goes to who waits in the
// same Locker, in one statement, on three columns too.
func TestReleaseLockHandsOver(t *testing.T) {
	t.Parallel()

	for _, columns := range []string{"six columns", "three columns"} {
		t.Run(columns, func(t *testing.T) {
			t.Parallel()

			url := databases.NewDatabase(t).String()
			db := contract.Open(t, "pgx", url)
			w := contract.NewWatcher()
			cfg := &pglocker.Config{Observer: w}

			must(t, pglocker.MigrateDB(t.Context(), db, cfg))

			if columns == "three columns" {
				contract.Exec(t, db, `ALTER TABLE pglocker.lock_statuses
					DROP COLUMN owner, DROP COLUMN acquired_at, DROP COLUMN contended_until`)
			}

			locker, err := pglocker.New(db, cfg)
			must(t, err)

			defer func() { must(t, locker.Close(context.Background())) }()

			status, err := locker.AcquireLock(t.Context(), "a", time.Minute)
			must(t, err)

			granted := make(chan *pglocker.Lock, 1)

			go func() {
				lock, err := locker.Lock(t.Context(), "a", time.Minute)
				if err != nil {
					t.Error(err)
				}

				granted <- lock
			}()

			contract.Receive(t, "somebody waits", w.InLine())
			must(t, locker.ReleaseLock(t.Context(), status))

			if lock := contract.Receive(t, "the lock", granted); lock.Token() != status.Generation+1 {
				t.Errorf("released %d and granted %d, want the next: one statement", status.Generation, lock.Token())
			}
		})
	}
}
