package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// largestBatch is a tracer of pgx that keeps the most ids that one statement had.
type largestBatch struct {
	onStatement

	ids atomic.Int64
}

func (l *largestBatch) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	for _, query := range data.Batch.QueuedQueries {
		l.count(query.Arguments)
	}

	return ctx
}

func (l *largestBatch) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	l.count(data.Args)

	return ctx
}

func (l *largestBatch) count(args []any) {
	for _, arg := range args {
		if ids, ok := arg.([]string); ok {
			for n := int64(len(ids)); ; {
				if most := l.ids.Load(); n <= most || l.ids.CompareAndSwap(most, n) {
					break
				}
			}
		}
	}
}

// TestBatchesAreBounded: of thousands of requests that gathered while the pool was used up,
// no more than 512 go in one statement.
func TestBatchesAreBounded(t *testing.T) {
	t.Parallel()

	const callers = 3000

	cfg, err := pgx.ParseConfig(newDatabase(t))
	must(t, err)

	seen := new(largestBatch)
	cfg.Tracer = seen

	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(2)
	must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))

	asked := make(chan struct{}, callers)
	locker := watchedLocker(t, db, starts(func(start pglocker.OperationStart) {
		if start.Operation == pglocker.OperationAcquire {
			asked <- struct{}{}
		}
	}))
	t.Cleanup(func() { _ = db.Close() })

	_, err = locker.CreateLock(t.Context(), "any") // the table is known from here on
	must(t, err)

	var taken []interface{ Close() error }

	for range 2 {
		conn, err := db.Conn(t.Context())
		must(t, err)

		taken = append(taken, conn)
	}

	var group sync.WaitGroup

	for i := range callers {
		group.Go(func() {
			if _, err := locker.AcquireLock(t.Context(), fmt.Sprint(i), time.Minute); err != nil {
				t.Error(err)
			}
		})
	}

	for range callers {
		contract.Receive(t, "a request is made", asked)
	}

	for _, conn := range taken {
		must(t, conn.Close())
	}

	group.Wait()

	if most := seen.ids.Load(); most > 512 || most < 256 {
		t.Errorf("a statement had %d ids, want 512 at most, and not a few", most)
	}
}

// starts is an observer that is called with each operation that starts.
type starts func(start pglocker.OperationStart)

func (f starts) OperationStart(ctx context.Context, start pglocker.OperationStart) context.Context {
	f(start)

	return ctx
}

func (starts) OperationEnd(context.Context, pglocker.OperationEnd) {}

func (starts) LockLost(pglocker.LockLost) {}

// TestMinHoldsUnlockedTogether: locks with a minimum hold keep it when many are unlocked at
// the same moment.
func TestMinHoldsUnlockedTogether(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const locks = 30

		url := newDatabase(t)
		locker := newLocker(t, driver, url)

		var (
			held  [locks]*pglocker.Lock
			group sync.WaitGroup
		)

		for i := range held {
			group.Go(func() {
				var err error
				if held[i], err = locker.TryLock(t.Context(), fmt.Sprint(i), time.Minute, pglocker.WithMinHold(time.Hour)); err != nil {
					t.Error(err)
				}
			})
		}

		group.Wait()

		if t.Failed() {
			return
		}

		for _, lock := range held {
			group.Go(func() {
				if err := lock.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}

		group.Wait()

		n := contract.Query[int](t, contract.Open(t, driver, url), `SELECT count(*) FROM pglocker.lock_statuses
			WHERE expires_at > clock_timestamp() + interval '50 minutes' AND owner IS NULL`)
		if n != locks {
			t.Errorf("%d of %d locks are held for an hour", n, locks)
		}
	})
}

// TestConfirmedGrantCountsFromItsSending: the reply to a grant is lost after a second, and the
// grant is confirmed then. Its lease has run for that second.
func TestConfirmedGrantCountsFromItsSending(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		if !l.owners {
			t.Skip("without owners no grant is confirmed")
		}

		const ttl = 4 * time.Second

		before, _ := l.row(t)

		var lost, granted atomic.Bool

		l.proxy.onAnswer(func() fate {
			switch generation, _ := l.row(t); {
			case granted.Load():
				return mute // no renewal is acknowledged
			case generation != before && lost.CompareAndSwap(false, true):
				time.Sleep(time.Second) // the reply is late, and then lost

				return cut
			}

			return pass
		})

		lock, err := l.locker.TryLock(t.Context(), "a", ttl, pglocker.WithRelockInterval(ttl/2))
		must(t, err)
		granted.Store(true)

		contract.Receive(t, "the lock is lost", lock.Context().Done())

		if left := lock.Status().ExpiresAt.Sub(contract.Now(t, l.direct)); left <= 0 {
			t.Errorf("the holder believed until %s after the end of its lease", -left)
		}
	})
}

// TestUnansweredLookIsNoLoss: a renewal passes over a row that another transaction has locked. The
// look at the row that follows is not answered. That is not a loss.
func TestUnansweredLookIsNoLoss(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		const ttl = 6 * time.Second

		lock, err := l.locker.TryLock(t.Context(), "a", ttl, pglocker.WithRelockInterval(50*time.Millisecond))
		must(t, err)

		stranger := lockRows(t, l.direct, "%")

		var (
			answers atomic.Int64
			until   atomic.Int64
			over    = make(chan struct{})
			once    sync.Once
		)

		l.proxy.onAnswer(func() fate {
			switch n := answers.Add(1); {
			case n == 1:
				until.Store(time.Now().Add(700 * time.Millisecond).UnixNano())

				return pass
			case time.Now().UnixNano() < until.Load():
				return cut
			}

			once.Do(func() { close(over) })

			return pass
		})

		contract.Receive(t, "answers come again", over)
		must(t, stranger.Rollback())

		last := lock.Status().ExpiresAt

		contract.Await(t, "a renewal", func() bool {
			return lock.Context().Err() != nil || lock.Status().ExpiresAt.After(last)
		})

		if lock.Context().Err() != nil {
			t.Errorf("the lock was lost: %v", context.Cause(lock.Context()))
		}

		must(t, lock.Unlock(t.Context()))
	})
}

// TestConfiguredMargin: a holder stops believing that long before its lease ends.
func TestConfiguredMargin(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		const margin = 1500 * time.Millisecond

		cfg := *l.cfg
		cfg.SafetyMargin = margin

		locker, err := pglocker.New(l.db, &cfg)
		must(t, err)
		t.Cleanup(func() {
			l.proxy.cutAll()
			closeLocker(t, locker)
		})

		lock, err := locker.TryLock(t.Context(), "a", 4*time.Second, pglocker.WithRelockInterval(3*time.Second))
		must(t, err)
		l.proxy.onAnswer(func() fate { return mute })

		contract.Receive(t, "the lock is lost", lock.Context().Done())

		left := lock.Status().ExpiresAt.Sub(contract.Now(t, l.direct))
		if least := margin - 100*time.Millisecond; left < least {
			t.Errorf("the holder believed until %s before the end of its lease, want %s or more", left, least)
		}
	})
}

// TestCloseWaitsForLateGrants: callers leave while the server's answers are late. What they
// were granted is released before Close returns.
func TestCloseWaitsForLateGrants(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		if !l.owners {
			t.Skip("what is granted to a caller that has left is left to expire")
		}

		const callers = 40

		var late atomic.Bool

		late.Store(true)
		l.proxy.onAnswer(func() fate {
			if late.Load() {
				time.Sleep(150 * time.Millisecond) // a slow network
			}

			return pass
		})

		ctx, leave := context.WithCancel(t.Context())

		var (
			group sync.WaitGroup
			kept  atomic.Int64
		)

		for i := range callers {
			group.Go(func() {
				switch _, err := l.locker.AcquireLock(ctx, fmt.Sprint(i), time.Hour); {
				case err == nil:
					kept.Add(1)
				case !errors.Is(err, context.Canceled):
					t.Error(err)
				}
			})
		}

		held := func() int64 {
			return contract.Query[int64](t, l.direct, "SELECT count(*) FROM pglocker.lock_statuses WHERE expires_at > clock_timestamp()")
		}

		contract.Await(t, "the database grants locks", func() bool { return held() > 0 })
		leave()
		group.Wait()

		late.Store(false)
		closeLocker(t, l.locker)

		if n := held(); n > kept.Load() {
			t.Errorf("%d locks are held after Close, of which callers know %d", n, kept.Load())
		}
	})
}

// TestPollingIsLogged: where waiters have to poll although the driver can listen, the log says so,
// with the reason.
func TestPollingIsLogged(t *testing.T) {
	t.Parallel()

	for name, setup := range map[string]func(t *testing.T) (driver, url string){
		"a driver that can't listen": func(t *testing.T) (string, string) { return "postgres", newDatabase(t) },
		"a pooler":                   func(t *testing.T) (string, string) { return "pgx", throughPgBouncer(t, newDatabase(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var (
				told        page
				driver, url = setup(t)
			)

			locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, driver, url),
				&pglocker.Config{Logger: slog.New(slog.NewTextHandler(&told, nil))})
			must(t, err)
			t.Cleanup(func() { closeLocker(t, locker) })

			held, err := locker.AcquireLock(t.Context(), "a", time.Minute)
			must(t, err)

			ctx, cancel := context.WithCancel(t.Context())
			left := make(chan struct{})

			go func() {
				defer close(left)

				_, _ = locker.Lock(ctx, "a", time.Minute)
			}()

			contract.Await(t, "it is logged", func() bool { return strings.Contains(told.String(), "polling") })
			cancel()
			contract.Receive(t, "the waiter leaves", left)
			must(t, locker.ReleaseLock(t.Context(), held))
		})
	}
}
