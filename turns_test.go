package pglocker_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestContextEndsFirst: when the next holder has the lock, the context of the one
// before has ended.
func TestContextEndsFirst(t *testing.T) {
	t.Parallel()

	locker := contract.NewLocker(t, "pgx", contract.NewDatabase(t))

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
				url     = contract.NewDatabase(t)
				config  = &pglocker.Config{Scheme: pglocker.PublicScheme}
				direct  = contract.Open(t, "pgx", url)
				ctx     = t.Context()
				greedy  sync.WaitGroup
				granted atomic.Int64
			)

			if setup.columns == "" {
				contract.Must(t, pglocker.MigrateDB(ctx, direct, config))
			} else {
				contract.Exec(t, direct, "CREATE TABLE public.lock_statuses ("+setup.columns+")")
			}

			open := func() *pglocker.Locker {
				locker, err := pglocker.New(contract.Open(t, setup.driver, url), config)
				contract.Must(t, err)

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
				contract.Must(t, err)

				// A turn of the others is 400 ms at most and then lies free for as long;
				// not every look meets that.
				if waited := time.Since(began); waited > 10*time.Second {
					t.Errorf("the other process waited %s for its turn", waited)
				}

				contract.Must(t, lock.Unlock(ctx))
			}
		})
	}
}

// TestTurnsOfOneWaiter: a process lets others have the lock also if it never has more than one waiter, whose line is
// empty after each hand-over.
func TestTurnsOfOneWaiter(t *testing.T) {
	t.Parallel()

	for name, of := range takers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testTurnsOfOneWaiter(t, of)
		})
	}
}

type (
	unlockable interface {
		Unlock(ctx context.Context) error
	}

	// taker waits for a lock, or for the one place there is.
	taker func(ctx context.Context) (unlockable, error)
)

// takers make takers for a Locker.
var takers = map[string]func(*pglocker.Locker) (taker, error){
	"lock": func(l *pglocker.Locker) (taker, error) {
		return func(ctx context.Context) (unlockable, error) { return l.Lock(ctx, "a", time.Minute) }, nil
	},
	"semaphore": func(l *pglocker.Locker) (taker, error) {
		s, err := l.NewSemaphore("a", 1)

		return func(ctx context.Context) (unlockable, error) { return s.Acquire(ctx, time.Minute) }, err
	},
	"writer": func(l *pglocker.Locker) (taker, error) {
		rw, err := l.NewRWLock("a")

		return func(ctx context.Context) (unlockable, error) { return rw.Lock(ctx, time.Minute) }, err
	},
}

// wait takes on a goroutine of its own. The channel is closed without a lock after an error.
func (take taker) wait(ctx context.Context, t *testing.T) <-chan unlockable {
	taken := make(chan unlockable, 1)

	go func() {
		defer close(taken)

		lock, err := take(ctx)
		if err == nil {
			taken <- lock
		} else if ctx.Err() == nil {
			t.Error(err)
		}
	}()

	return taken
}

func testTurnsOfOneWaiter(t *testing.T, of func(*pglocker.Locker) (taker, error)) {
	const limit = 150 // it hears of each 17th release, and may lose some of them on a busy machine

	var (
		ctx    = t.Context()
		url    = contract.NewDatabase(t)
		direct = contract.Open(t, "pgx", url)
		w      = contract.NewWatcher()
	)

	contract.MakeTable(t, direct, "")

	locker, err := of(contract.WatchedLocker(t, contract.Open(t, "pgx", url), w))
	contract.Must(t, err)

	rival, err := of(contract.NewLocker(t, "pgx", url))
	contract.Must(t, err)

	// marked waits for a mark of another than before, which asks for a notification.
	seen := ""
	marked := func(who string) {
		contract.Await(t, who+" marks the lock", func() bool {
			mark := contract.Query[string](t, direct, `SELECT coalesce(max(contended_until)::text, '')
				FROM pglocker.lock_statuses WHERE contended_until > clock_timestamp() + interval '1 second'`)
			if mark == "" || mark == seen {
				return false
			}

			seen = mark

			return true
		})
	}

	held := contract.Receive(t, "the first", locker.wait(ctx, t))
	other := rival.wait(ctx, t)

	marked("the other")

	for n := range limit {
		next := locker.wait(ctx, t)
		contract.Receive(t, "one waits", w.InLine())

		if n == 0 {
			marked("the one")
		}

		contract.Must(t, held.Unlock(ctx))

		select {
		case lock := <-other:
			contract.Must(t, lock.Unlock(ctx))
			contract.Must(t, contract.Receive(t, "the last", next).Unlock(ctx))

			return
		case held = <-next:
		}
	}

	t.Errorf("the other process had no turn after %d of another", limit)
	contract.Must(t, held.Unlock(ctx))
	contract.Must(t, contract.Receive(t, "the other", other).Unlock(ctx))
}

// TestTurnsOfOneWaiterPolling: a process with one waiter at a time lets others have the lock also where they poll.
func TestTurnsOfOneWaiterPolling(t *testing.T) {
	t.Parallel()

	for _, setup := range []struct{ name, driver, columns, of string }{
		{"lock without marks", "pgx", contract.ThreeColumns, "lock"},
		{"semaphore without marks", "pgx", contract.ThreeColumns, "semaphore"},
		{"lock", "postgres", "", "lock"},
		{"semaphore", "postgres", "", "semaphore"},
		{"writer", "postgres", "", "writer"},
	} {
		t.Run(setup.name, func(t *testing.T) {
			t.Parallel()

			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()

			var (
				url    = contract.NewDatabase(t)
				direct = contract.Open(t, "pgx", url)
				config = &pglocker.Config{Scheme: pglocker.PublicScheme}
				w      = contract.NewWatcher()
				over   atomic.Bool
				loop   sync.WaitGroup
			)

			if setup.columns == "" {
				contract.Must(t, pglocker.MigrateDB(t.Context(), direct, config))
			} else {
				contract.Exec(t, direct, "CREATE TABLE public.lock_statuses ("+setup.columns+")")
			}

			open := func(observer pglocker.Observer) taker {
				locker, err := pglocker.New(contract.Open(t, setup.driver, url), &pglocker.Config{Scheme: config.Scheme, Observer: observer})
				contract.Must(t, err)
				t.Cleanup(func() { contract.CloseLocker(t, locker) })

				take, err := takers[setup.of](locker)
				contract.Must(t, err)

				return take
			}

			many, one := open(w), open(nil)

			held, err := many(ctx)
			contract.Must(t, err)

			loop.Go(func() {
				for ended := false; !ended; {
					next := many.wait(ctx, t)

					select {
					case <-w.InLine():
					case <-ctx.Done():
					}

					if err := held.Unlock(ctx); err != nil {
						t.Error(err)
					}

					lock, ok := <-next
					if !ok {
						return
					}

					held, ended = lock, over.Load()
				}

				if err := held.Unlock(ctx); err != nil {
					t.Error(err)
				}
			})

			began := time.Now()
			lock, err := one(ctx)
			waited := time.Since(began)

			over.Store(true)

			if err == nil {
				err = lock.Unlock(ctx)
			}

			loop.Wait()
			contract.Must(t, err)

			if waited > 10*time.Second {
				t.Errorf("the other process waited %s for its turn", waited)
			}
		})
	}
}

// TestLooksAgainWithoutAMark: a release isn't heard of by a waiter whose look should have
// left a mark and left none, so it looks again soon.
func TestLooksAgainWithoutAMark(t *testing.T) {
	t.Parallel()

	var (
		ctx, cancel = context.WithCancel(t.Context())
		url         = contract.NewDatabase(t)
		waiter      = contract.NewLocker(t, "pgx", url)
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

// TestReleaseLockHandsOver: a lease that is released by hand goes to who waits in the
// same Locker, in one statement, on three columns too.
func TestReleaseLockHandsOver(t *testing.T) {
	t.Parallel()

	for _, columns := range []string{"six columns", "three columns"} {
		t.Run(columns, func(t *testing.T) {
			t.Parallel()

			url := contract.NewDatabase(t)
			db := contract.Open(t, "pgx", url)
			w := contract.NewWatcher()
			cfg := &pglocker.Config{Observer: w}

			contract.Must(t, pglocker.MigrateDB(t.Context(), db, cfg))

			if columns == "three columns" {
				contract.Exec(t, db, `ALTER TABLE pglocker.lock_statuses
					DROP COLUMN owner, DROP COLUMN acquired_at, DROP COLUMN contended_until`)
			}

			locker, err := pglocker.New(db, cfg)
			contract.Must(t, err)

			defer func() { contract.Must(t, locker.Close(context.Background())) }()

			status, err := locker.AcquireLock(t.Context(), "a", time.Minute)
			contract.Must(t, err)

			granted := make(chan *pglocker.Lock, 1)

			go func() {
				lock, err := locker.Lock(t.Context(), "a", time.Minute)
				if err != nil {
					t.Error(err)
				}

				granted <- lock
			}()

			contract.Receive(t, "somebody waits", w.InLine())
			contract.Must(t, locker.ReleaseLock(t.Context(), status))

			if lock := contract.Receive(t, "the lock", granted); lock.Token() != status.Generation+1 {
				t.Errorf("released %d and granted %d, want the next: one statement", status.Generation, lock.Token())
			}
		})
	}
}
