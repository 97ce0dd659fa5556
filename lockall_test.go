package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// areHeld is how many of the locks are held, as the table shows it.
func areHeld(t *testing.T, db *sql.DB, ids ...string) (held int) {
	t.Helper()

	for _, id := range ids {
		held += contract.Query[int](t, db,
			"SELECT count(*) FROM pglocker.lock_statuses WHERE lock_id = $1 AND expires_at > clock_timestamp()", id)
	}

	return held
}

// never is longer than any test.
const never = time.Hour

// TestLockAllOrders: calls that want some of the same locks in any order, here and in another Locker, all get
// them, each alone.
func TestLockAllOrders(t *testing.T) {
	t.Parallel()

	const rounds = 6

	var (
		url     = contract.NewDatabase(t)
		lockers = []*pglocker.Locker{contract.NewLocker(t, "pgx", url), contract.NewLocker(t, "postgres", url)}
		ids     = []string{"a", "b", "c", "d"}
		holders [4]atomic.Int32
		callers sync.WaitGroup
	)

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	for caller := range 12 {
		callers.Go(func() {
			for range rounds {
				var wanted []string

				order := rand.Perm(len(ids))[:2+rand.IntN(2)]
				for _, i := range order {
					wanted = append(wanted, ids[i])
				}

				err := lockers[caller%2].DoAll(ctx, wanted, time.Minute, time.Second, func(context.Context) error {
					for _, i := range order {
						if n := holders[i].Add(1); n > 1 {
							t.Errorf("%d have %q at once", n, ids[i])
						}
					}

					for _, i := range order {
						holders[i].Add(-1)
					}

					return nil
				}, pglocker.WithWait(pglocker.Forever))
				if err != nil {
					t.Errorf("DoAll of %v: %v", wanted, err)

					return
				}
			}
		})
	}

	callers.Wait()
}

// TestLockAllHoldsNothing: while it waits, LockAll has no lock, and its failed requests lock no row. It waits
// for one lock after the other.
func TestLockAllHoldsNothing(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		ctx := t.Context()
		url := contract.NewDatabase(t)
		direct := contract.Open(t, "pgx", url)
		locker, other := contract.NewLocker(t, driver, url), contract.NewLocker(t, driver, url)
		locker.SetGatherAfter(never)

		for _, id := range []string{"a", "d"} {
			contract.Must(t, contract.Second(locker.CreateLock(ctx, id)))
		}

		version := func() string {
			return contract.Query[string](t, direct,
				"SELECT string_agg(ctid::text || xmax::text, ' ' ORDER BY lock_id) FROM pglocker.lock_statuses WHERE lock_id IN ('a', 'd')")
		}
		before := version()

		b, err := other.TryLock(ctx, "b", time.Minute)
		contract.Must(t, err)
		c, err := locker.TryLock(ctx, "c", time.Minute)
		contract.Must(t, err)

		_, err = locker.TryLockAll(ctx, []string{"d", "c", "a"}, time.Minute)
		if !errors.Is(err, pglocker.ErrAlreadyLocked) {
			t.Errorf("TryLockAll: %v, want ErrAlreadyLocked", err)
		}

		granted := make(chan *pglocker.MultiLock, 1)

		go func() {
			multi, err := locker.LockAll(ctx, []string{"d", "c", "b", "a"}, time.Minute)
			if err != nil {
				t.Error(err)
			}

			granted <- multi
		}()

		contract.Await(t, "LockAll waits for b", func() bool { return locker.InLine("b") })

		for _, id := range []string{"b", "c"} {
			marked := id == "b"
			contract.Await(t, "LockAll marks the first lock in its way alone", func() bool {
				return marked == contract.Query[bool](t, direct,
					"SELECT contended_until IS NOT NULL FROM pglocker.lock_statuses WHERE lock_id = $1", id)
			})
		}

		contract.Must(t, b.Unlock(ctx))
		contract.Await(t, "LockAll waits for c", func() bool { return locker.InLine("c") && !locker.InLine("b") })

		if held := areHeld(t, direct, "a", "b", "d"); held > 0 {
			t.Errorf("%d locks are held while LockAll waits", held)
		}

		if after := version(); after != before {
			t.Errorf("a failed request changed or locked free rows: %s, before %s", after, before)
		}

		contract.Must(t, c.Unlock(ctx))
		multi := contract.Receive(t, "LockAll is granted", granted)
		contract.Must(t, multi.Unlock(ctx))
	})
}

// TestLockAllPassesOver: a free lock whose row another transaction has locked is in the way of all. The others
// are not granted, and their rows not kept locked.
func TestLockAllPassesOver(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()

		url := contract.NewDatabase(t)
		direct := contract.Open(t, "pgx", url)
		locker := contract.NewLocker(t, driver, url)

		for _, id := range []string{"a", "b", "c"} {
			contract.Must(t, contract.Second(locker.CreateLock(ctx, id)))
		}

		stranger := contract.LockRows(t, direct, "b")

		var held *pglocker.HeldError

		_, err := locker.TryLockAll(ctx, []string{"c", "b", "a"}, time.Minute)
		if !errors.As(err, &held) || held.LockID != "b" {
			t.Fatalf("TryLockAll: %v, want a *HeldError of b", err)
		}

		granted := make(chan *pglocker.MultiLock, 1)

		go func() {
			multi, err := locker.LockAll(ctx, []string{"c", "b", "a"}, time.Minute)
			if err != nil {
				t.Error(err)
			}

			granted <- multi
		}()

		contract.Await(t, "LockAll waits for b", func() bool { return locker.InLine("b") })

		if held := areHeld(t, direct, "a", "b", "c"); held > 0 {
			t.Errorf("%d locks are held", held)
		}

		contract.Must(t, stranger.Rollback())

		multi := contract.Receive(t, "LockAll is granted", granted)
		contract.Must(t, multi.Unlock(ctx))
	})
}

// TestLockAllChangedMeanwhile: a row is changed after a request has seen it. That request grants
// nothing. If the row is free in its newest version, the next grants all, that one under a newer token. If it is held, none is.
func TestLockAllChangedMeanwhile(t *testing.T) {
	t.Parallel()

	for name, columns := range map[string]string{"six columns": "", "three columns": contract.ThreeColumns} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			ctx := t.Context()
			url := contract.NewDatabase(t)
			admin := contract.Open(t, "pgx", url)
			contract.MakeTable(t, admin, columns)

			// A policy's function is called for every row that a statement reads, after its snapshot. It waits
			// while another has the advisory lock.
			role, db := newRole(t, admin, "pgx", url)
			for _, text := range []string{
				"CREATE FUNCTION public.gate() RETURNS boolean LANGUAGE plpgsql AS " +
					"$$ BEGIN PERFORM pg_advisory_xact_lock_shared(1); RETURN true; END $$",
				"GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO " + role,
				"ALTER TABLE pglocker.lock_statuses ENABLE ROW LEVEL SECURITY",
				"CREATE POLICY gated ON pglocker.lock_statuses TO " + role + " USING (public.gate())",
			} {
				contract.Exec(t, admin, text)
			}

			locker := contract.WatchedLocker(t, db, nil)
			ids := []string{"a", "b"}

			take := func() (*pglocker.MultiLock, error) { return locker.TryLockAll(ctx, ids, time.Minute) }
			multi, err := take() // it looks at the table, and makes the locks
			contract.Must(t, err)
			contract.Must(t, multi.Unlock(ctx))

			for _, change := range []struct {
				set  string
				held bool
			}{
				{"generation = generation + 100", false},
				{"generation = generation + 100, expires_at = clock_timestamp() + interval '1 minute'", true},
			} {
				gate, err := admin.BeginTx(ctx, nil)
				contract.Must(t, err)
				contract.Must(t, contract.Second(gate.ExecContext(ctx, "SELECT pg_advisory_xact_lock(1)")))

				got := make(chan error, 1)

				go func() {
					var err error

					multi, err = take()
					got <- err
				}()

				contract.Await(t, "the request waits after its snapshot", func() bool {
					return contract.Query[bool](t, admin, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted "+
						"AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))")
				})

				changed := contract.Now(t, admin)
				token := contract.Query[int64](t, admin, "UPDATE pglocker.lock_statuses SET "+change.set+" WHERE lock_id = 'b' RETURNING generation")
				contract.Must(t, gate.Commit())

				err = contract.Receive(t, "TryLockAll returns", got)

				var held *pglocker.HeldError

				switch {
				case change.held:
					if !errors.As(err, &held) || held.LockID != "b" || held.Generation != token {
						t.Errorf("TryLockAll: %v, want a *HeldError of b with token %d", err, token)
					}

					if areHeld(t, admin, "a") != 0 {
						t.Error("a is held")
					}
				case err != nil:
					t.Errorf("TryLockAll: %v", err)
				default:
					if got := multi.Tokens()["b"]; got <= token {
						t.Errorf("token %d, want more than %d", got, token)
					}

					if n := areHeld(t, admin, ids...); n != len(ids) {
						t.Errorf("%d of %d are held", n, len(ids))
					}

					if !contract.Query[bool](t, admin, "SELECT bool_and(expires_at > $1::timestamptz + interval '1 minute') FROM pglocker.lock_statuses", changed) {
						t.Error("the statement that had not seen the change granted one")
					}

					contract.Must(t, multi.Unlock(ctx))
				}
			}
		})
	}
}

// TestLockAllTurn: a stream of calls for single locks doesn't keep LockAll waiting, whether they are in its
// Locker or in another.
func TestLockAllTurn(t *testing.T) {
	t.Parallel()

	for _, where := range []string{"here", "elsewhere", "both"} {
		for name, columns := range map[string]string{"six columns": "", "three columns": contract.ThreeColumns} {
			t.Run(where+", "+name, func(t *testing.T) {
				url := contract.NewDatabase(t)
				contract.MakeTable(t, contract.Open(t, "pgx", url), columns)

				open := func() *pglocker.Locker { return contract.WatchedLocker(t, contract.Open(t, "pgx", url), nil) }
				locker, other := open(), open()
				streams := map[string][]*pglocker.Locker{
					"here": {locker}, "elsewhere": {other}, "both": {locker, other},
				}[where]

				var (
					narrow sync.WaitGroup
					turns  [2]atomic.Int64
				)

				ctx, stop := context.WithCancel(t.Context())
				defer narrow.Wait()
				defer stop()

				for i := range turns {
					for k := range 4 {
						narrow.Go(func() {
							for ctx.Err() == nil {
								lock, err := streams[k%len(streams)].Lock(ctx, fmt.Sprint("lock ", i), time.Minute)
								if err != nil {
									return
								}

								turns[i].Add(1)

								if err := lock.Unlock(t.Context()); err != nil {
									t.Error(err)
								}
							}
						})
					}
				}

				contract.Await(t, "the streams run", func() bool { return turns[0].Load() > 30 && turns[1].Load() > 30 })

				for range 2 {
					began := time.Now()

					multi, err := locker.LockAll(ctx, []string{"lock 1", "lock 0"}, time.Minute)
					contract.Must(t, err)

					// It gathers after a second, for a second, then for two, for four. A turn of others that poll
					// takes up to a second, and more on a busy machine.
					waited := time.Since(began)
					if waited > 20*time.Second {
						t.Errorf("LockAll waited %s for its turn", waited)
					}

					t.Logf("LockAll waited %s", waited)

					contract.Must(t, multi.Unlock(t.Context()))
				}
			})
		}
	}
}

// TestLockAllGathersInVain: what LockAll gathers it gives back when it takes too long, and it gathers again.
func TestLockAllGathersInVain(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	url := contract.NewDatabase(t)
	direct := contract.Open(t, "pgx", url)
	locker, other := contract.NewLocker(t, "pgx", url), contract.NewLocker(t, "pgx", url)
	locker.SetGatherAfter(200 * time.Millisecond)

	b, err := other.TryLock(ctx, "b", time.Minute)
	contract.Must(t, err)

	granted := make(chan *pglocker.MultiLock, 1)

	go func() {
		multi, err := locker.LockAll(ctx, []string{"c", "b", "a"}, time.Minute, pglocker.WithMinHold(time.Hour))
		if err != nil {
			t.Error(err)
		}

		granted <- multi
	}()

	for range 2 {
		contract.Await(t, "LockAll gathers", func() bool { return areHeld(t, direct, "a") == 1 })

		if held := areHeld(t, direct, "c"); held > 0 {
			t.Error("it took a lock out of order")
		}

		// It doesn't honour a minimum hold of what it never had.
		a, err := other.Lock(ctx, "a", time.Minute)
		contract.Must(t, err)
		contract.Must(t, a.Unlock(ctx))
	}

	contract.Must(t, b.Unlock(ctx))
	multi := contract.Receive(t, "LockAll is granted", granted)

	if held := areHeld(t, direct, "a", "b", "c"); held != 3 {
		t.Errorf("%d of 3 locks are held", held)
	}

	contract.Must(t, multi.Unlock(ctx))

	if held := areHeld(t, direct, "a", "b", "c"); held != 3 {
		t.Errorf("%d of 3 locks are held for their minimum time", held)
	}
}

// TestLockAllGivesUp: when its context or its time ends, LockAll says which lock is in the way. It keeps
// nothing. The end may also cut off a request.
func TestLockAllGivesUp(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	direct := contract.Open(t, "pgx", url)
	locker, other := contract.NewLocker(t, "pgx", url), contract.NewLocker(t, "pgx", url)
	locker.SetGatherAfter(400 * time.Millisecond)

	_, err := other.TryLock(t.Context(), "b", time.Minute)
	contract.Must(t, err)
	contract.Must(t, contract.Second(locker.CreateLock(t.Context(), "a"))) // connects

	// It ends while it waits for all, while it gathers, and while it waits for all again.
	for _, limit := range []time.Duration{300 * time.Millisecond, 600 * time.Millisecond, time.Second} {
		var held *pglocker.HeldError

		_, err = locker.TryLockAll(t.Context(), []string{"c", "b", "a"}, time.Minute, pglocker.WithWait(limit))
		if late := errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, pglocker.ErrUnknownOutcome); late ||
			!errors.As(err, &held) || held.LockID != "b" {
			t.Errorf("TryLockAll with a wait of %s: %v, want a *HeldError of b", limit, err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), limit)

		_, err = locker.LockAll(ctx, []string{"c", "b", "a"}, time.Minute)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &held) {
			t.Errorf("LockAll for %s: %v, want context.DeadlineExceeded, and a *HeldError", limit, err)
		}

		cancel()
	}

	contract.Await(t, "nothing is held", func() bool { return areHeld(t, direct, "a", "c") == 0 })
}

// TestLockAllCutOff: its context ends while a request has no answer. Its error names the lock that was in the way
// before.
func TestLockAllCutOff(t *testing.T) {
	t.Parallel()

	url := contract.NewDatabase(t)
	direct := contract.Open(t, "pgx", url)
	watcher := contract.NewWatcher()
	locker, other := contract.WatchedLocker(t, contract.Open(t, "pgx", url), watcher), contract.NewLocker(t, "pgx", url)
	locker.SetGatherAfter(time.Second)

	_, err := other.TryLock(t.Context(), "b", time.Minute)
	contract.Must(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	done := make(chan error, 1)

	go func() {
		_, err := locker.LockAll(ctx, []string{"a", "b"}, time.Minute)
		done <- err
	}()

	contract.Receive(t, "it waits", watcher.InLine())

	tx, err := direct.BeginTx(t.Context(), nil)
	contract.Must(t, err)
	contract.Must(t, contract.Second(tx.ExecContext(t.Context(), "LOCK TABLE pglocker.lock_statuses IN ACCESS EXCLUSIVE MODE")))
	contract.Await(t, "a request for both hangs", func() bool { return watcher.UnderWay(pglocker.OperationAcquire) })
	cancel()

	var held *pglocker.HeldError

	err = contract.Receive(t, "LockAll returns", done)
	if !errors.Is(err, context.Canceled) || !errors.As(err, &held) || held.LockID != "b" || held.Age == 0 {
		t.Errorf("LockAll: %v, want context.Canceled, and a *HeldError of b", err)
	}

	contract.Must(t, tx.Rollback())
	contract.Await(t, "nothing is held", func() bool { return areHeld(t, direct, "a") == 0 })
}

// TestLockAllStatements: a thousand locks take a few statements. On a busy machine one that takes too long
// would be repeated, so no other test runs beside it.
func TestLockAllStatements(t *testing.T) {
	url := contract.NewDatabase(t)
	contract.MakeTable(t, contract.Open(t, "pgx", url), "")

	w := contract.NewWatcher()
	c := contract.NewCounted(t, url, w, 5)
	ctx := t.Context()
	ids := make([]string, pglocker.MaxLockIDs)

	for i := range ids {
		ids[i] = fmt.Sprintf("lock %d", i)
	}

	expect := func(what string, want int64, do func() error) {
		t.Helper()

		before := c.Statements.Load()
		contract.Must(t, do())

		if got := c.Statements.Load() - before; got != want {
			t.Errorf("%s: %d statements, want %d", what, got, want)
		}
	}

	var multi *pglocker.MultiLock

	take := func() (err error) {
		multi, err = c.Locker.TryLockAll(ctx, ids, time.Minute)

		return err
	}
	unlock := func() error { return multi.Unlock(ctx) }

	contract.Must(t, contract.Second(c.Locker.CreateLock(ctx, "x"))) // it looks at the table first
	expect("TryLockAll of new locks", 4, take)
	expect("Unlock", 1, unlock)
	expect("TryLockAll", 1, take)
	expect("Guard", 3, func() error { // with BEGIN and ROLLBACK
		tx, err := c.DB.BeginTx(ctx, nil)
		contract.Must(t, err)

		return errors.Join(multi.Guard(ctx, tx), tx.Rollback())
	})

	locks := make(chan *pglocker.Lock, 10)

	for i := range cap(locks) {
		go func() {
			lock, err := c.Locker.Lock(ctx, ids[100*i], time.Minute)
			if err != nil {
				t.Error(err)
			}

			locks <- lock
		}()

		contract.Receive(t, "a waiter in line", w.InLine())
	}

	contract.Await(t, "the first requests of the waiters have ended", func() bool { return !w.UnderWay(pglocker.OperationAcquire) })

	before := c.Statements.Load()
	contract.Must(t, unlock())

	// One releases the others. The 10 that are handed over, and the claims of their waiters, share statements as far
	// as they meet.
	if got := c.Statements.Load() - before; got > 1+10+10 {
		t.Errorf("Unlock of locks of which 10 are waited for: %d statements", got)
	}

	for range cap(locks) {
		contract.Must(t, contract.Receive(t, "a lock is handed over", locks).Unlock(ctx))
	}
}

// TestLockAllCancelled: the caller leaves while its request is under way. What that still brings is returned,
// or expires on a table without owners.
func TestLockAllCancelled(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		for name, columns := range map[string]string{"six columns": "", "three columns": contract.ThreeColumns} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()

				for _, wait := range []time.Duration{0, pglocker.Forever} {
					url := contract.NewDatabase(t)
					direct := contract.Open(t, "pgx", url)
					contract.MakeTable(t, direct, columns)
					locker := contract.WatchedLocker(t, contract.Open(t, driver, url), nil)

					multi, err := locker.TryLockAll(t.Context(), []string{"a", "b"}, time.Minute)
					contract.Must(t, err)
					contract.Must(t, multi.Unlock(t.Context()))

					stranger, err := direct.BeginTx(t.Context(), nil)
					contract.Must(t, err)
					_, err = stranger.ExecContext(t.Context(), "LOCK TABLE pglocker.lock_statuses IN ACCESS EXCLUSIVE MODE")
					contract.Must(t, err)

					ctx, cancel := context.WithCancel(t.Context())
					done := make(chan error, 1)

					go func() {
						_, err := locker.TryLockAll(ctx, []string{"a", "b"}, time.Minute, pglocker.WithWait(wait))
						done <- err
					}()

					contract.Await(t, "the statement waits", func() bool { return contract.RowWaits(t, direct) > 0 })
					cancel()

					err = contract.Receive(t, "TryLockAll returns", done)
					if !errors.Is(err, pglocker.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
						t.Errorf("%v, want ErrUnknownOutcome and context.Canceled", err)
					}

					contract.Must(t, stranger.Rollback())
					contract.Await(t, "nothing waits", func() bool { return contract.RowWaits(t, direct) == 0 })
					contract.Await(t, "the locks are free", func() bool { return areHeld(t, direct, "a", "b") == 0 })
				}
			})
		}
	})
}

// TestLockAllClosed: Close unlocks what is held and ends the waiting, at any stage of it.
func TestLockAllClosed(t *testing.T) {
	t.Parallel()

	for name, gatherAfter := range map[string]time.Duration{"at once": never, "gathering": time.Millisecond} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			url := contract.NewDatabase(t)
			direct := contract.Open(t, "pgx", url)
			locker, other := contract.NewLocker(t, "pgx", url), contract.NewLocker(t, "pgx", url)
			locker.SetGatherAfter(gatherAfter)

			_, err := other.TryLock(t.Context(), "b", time.Minute)
			contract.Must(t, err)
			multi, err := locker.TryLockAll(t.Context(), []string{"x", "y"}, time.Minute)
			contract.Must(t, err)

			done := make(chan error, 1)

			go func() {
				_, err := locker.LockAll(t.Context(), []string{"a", "b"}, time.Minute)
				done <- err
			}()

			contract.Await(t, "LockAll waits", func() bool {
				return locker.InLine("b") && (gatherAfter == never || areHeld(t, direct, "a") == 1)
			})
			contract.CloseLocker(t, locker)

			err = contract.Receive(t, "LockAll returns", done)
			if !errors.Is(err, pglocker.ErrClosed) || errors.Is(err, pglocker.ErrAlreadyLocked) {
				t.Errorf("LockAll: %v, want ErrClosed alone", err)
			}

			if cause := context.Cause(multi.Context()); !errors.Is(cause, pglocker.ErrClosed) {
				t.Errorf("the context has ended because of %v, want ErrClosed", cause)
			}

			if held := areHeld(t, direct, "a", "x", "y"); held > 0 {
				t.Errorf("%d locks are held after Close", held)
			}

			if err := multi.Unlock(t.Context()); !errors.Is(err, pglocker.ErrAlreadyUnlocked) {
				t.Errorf("Unlock after Close: %v, want ErrAlreadyUnlocked", err)
			}
		})
	}
}
