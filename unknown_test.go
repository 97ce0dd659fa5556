package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// An answer that is lost leaves open what was done. What is not known is never
// reported as held, and never as free; it is settled where the table has a column
// for the owner, and left to expire where it has not.

// lossy is a locker behind a proxy, with a created lock "a".
type lossy struct {
	proxy  *proxy
	locker *pglocker.Locker
	db     *sql.DB // the locker's
	direct *sql.DB
	cfg    *pglocker.Config
	owners bool
}

func eachLossy(t *testing.T, test func(t *testing.T, l *lossy)) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, owners := range map[string]bool{"six columns": true, "three columns": false} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()

				databaseURL := newDatabase(t)
				l := &lossy{direct: contract.Open(t, "pgx", databaseURL), cfg: &pglocker.Config{}, owners: owners}
				l.cfg.SetDefault()

				if owners {
					must(t, pglocker.MigrateDB(t.Context(), l.direct, l.cfg))
				} else {
					contract.Exec(t, l.direct, "CREATE SCHEMA pglocker")
					contract.Exec(t, l.direct, "CREATE TABLE pglocker.lock_statuses ("+contract.ThreeColumns+")")
				}

				var (
					through string
					err     error
				)

				l.proxy, through = newProxy(t, databaseURL)
				l.db = contract.Open(t, driver, through)
				l.locker, err = pglocker.New(l.db, l.cfg)
				must(t, err)
				t.Cleanup(func() {
					l.proxy.cutAll() // lib/pq waits for an answer as long as there is a connection
					closeLocker(t, l.locker)
				})

				if _, err := l.locker.CreateLock(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}

				test(t, l)
			})
		}
	})
}

// row is the lock as the server shows it.
func (l *lossy) row(t *testing.T) (generation int64, held bool) {
	t.Helper()

	// Not with t's context: the proxy asks while a test ends, too.
	err := l.direct.QueryRow("SELECT generation, expires_at > clock_timestamp() FROM pglocker.lock_statuses WHERE lock_id = 'a'").
		Scan(&generation, &held)
	if err != nil {
		t.Error(err)
	}

	return generation, held
}

// loseWhen loses the answers that come once the server shows another generation
// than it does now: the first of them is that to the statement that moved it.
func (l *lossy) loseWhen(t *testing.T, how fate, times int64) {
	t.Helper()

	before, _ := l.row(t)

	var lost atomic.Int64

	l.proxy.onAnswer(func() fate {
		if generation, _ := l.row(t); generation == before || lost.Add(1) > times {
			return pass
		}

		return how
	})
}

// TestGrantWithLostReply: the connection breaks before the reply to a grant.
func TestGrantWithLostReply(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		l.loseWhen(t, cut, 1)

		status, err := l.locker.AcquireLock(t.Context(), "a", time.Minute)
		generation, held := l.row(t)

		switch {
		case l.owners && (err != nil || !held || status.Generation != generation):
			t.Errorf("got %+v, %v, the database shows generation %d, held %t; want the grant settled",
				status, err, generation, held)
		case !l.owners && !errors.Is(err, pglocker.ErrUnknownOutcome):
			t.Errorf("%+v, %v, want ErrUnknownOutcome", status, err)
		case !l.owners && !held:
			t.Error("a grant that may be somebody else's was taken back")
		}
	})
}

// TestRefreshWithLostReply: the same for a refresh.
func TestRefreshWithLostReply(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		old, err := l.locker.AcquireLock(t.Context(), "a", time.Minute)
		must(t, err)
		l.loseWhen(t, cut, 1)

		status, err := l.locker.RefreshLock(t.Context(), old, time.Hour)
		generation, held := l.row(t)

		switch {
		case !held:
			t.Error("the lease that the caller may still be working under was ended")
		case l.owners && (err != nil || status.Generation != generation):
			t.Errorf("got %+v, %v, the database shows generation %d; want the refresh settled", status, err, generation)
		case !l.owners && !errors.Is(err, pglocker.ErrUnknownOutcome):
			t.Errorf("%+v, %v, want ErrUnknownOutcome", status, err)
		}
	})
}

// TestReleaseWithLostReply: a release that happened is not reported as a lock that
// was never held.
func TestReleaseWithLostReply(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		status, err := l.locker.AcquireLock(t.Context(), "a", time.Minute)
		must(t, err)
		l.loseWhen(t, cut, 1)

		if err := l.locker.ReleaseLock(t.Context(), status); err != nil && !errors.Is(err, pglocker.ErrUnknownOutcome) {
			t.Errorf("ReleaseLock: %v, want ErrUnknownOutcome", err)
		}

		if generation, held := l.row(t); held || generation != status.Generation+1 {
			t.Errorf("generation %d after %d, held %t", generation, status.Generation, held)
		}
	})
}

// TestDoWithLostReleaseReply: Do knows that the lock was its own, so it is the one
// that released it.
func TestDoWithLostReleaseReply(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		err := l.locker.Do(t.Context(), "a", time.Minute, 30*time.Second, func(context.Context) error {
			l.loseWhen(t, cut, 1)

			return nil
		})
		if err != nil {
			t.Errorf("Do: %v", err)
		}

		if _, held := l.row(t); held {
			t.Error("the lock is still held")
		}
	})
}

// TestGrantWithSilence: the reply to a grant never comes, until the caller gives
// up. What it doesn't know it may hold is given back long before its lease ends.
func TestGrantWithSilence(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		l.giveUpInSilence(t, time.Minute, func(first bool) fate {
			if first {
				return mute
			}

			return pass
		})
		l.wantSettled(t)
	})
}

// TestGiveBackWithSilence: the connection over which a grant is to be given back is
// silent too.
func TestGiveBackWithSilence(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		if !l.owners {
			t.Skip("nothing is given back here")
		}

		const ttl = 20 * time.Second

		sent := time.Now()

		var until atomic.Int64

		l.giveUpInSilence(t, ttl, func(first bool) fate {
			if first {
				until.Store(time.Now().Add(time.Second).UnixNano())
			}

			if time.Now().UnixNano() < until.Load() {
				return mute
			}

			return pass
		})
		l.wantSettled(t)

		if took := time.Since(sent); took > ttl*3/4 {
			t.Errorf("the lock was free %s after it was asked for with a TTL of %s", took, ttl)
		}
	})
}

// giveUpInSilence asks for the lock, and leaves when the reply to the grant was
// lost. lose says what becomes of that reply, the first, and of all after it.
func (l *lossy) giveUpInSilence(t *testing.T, ttl time.Duration, lose func(first bool) fate) {
	t.Helper()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	var lost atomic.Bool

	before, _ := l.row(t)

	l.proxy.onAnswer(func() fate {
		if generation, _ := l.row(t); generation == before {
			return pass
		}

		first := lost.CompareAndSwap(false, true)
		if first {
			defer cancel()
		}

		return lose(first)
	})

	status, err := l.locker.AcquireLock(ctx, "a", ttl)
	if !errors.Is(err, pglocker.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v, want ErrUnknownOutcome and context.Canceled", status, err)
	}
}

// wantSettled fails unless a grant of an unknown outcome is given back where that
// can be done, and left alone where it can't.
func (l *lossy) wantSettled(t *testing.T) {
	t.Helper()

	if l.owners {
		contract.Await(t, "the grant is given back", func() bool {
			_, held := l.row(t)

			return !held
		})

		return
	}

	if _, held := l.row(t); !held {
		t.Error("a grant that may be somebody else's was taken back")
	}
}

// TestGrantAfterTheCallerLeft: a caller leaves while its statement waits for the
// row, and nobody can tell the server. It returns at once; the grant that comes
// afterwards is given back.
func TestGrantAfterTheCallerLeft(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		stranger := lockRows(t, l.direct, "%")

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)

		go func() {
			_, err := l.locker.AcquireLock(ctx, "a", time.Minute)
			done <- err
		}()

		contract.Await(t, "the statement waits for the row", func() bool {
			return rowWaits(t, l.direct) > 0
		})
		l.proxy.refuse(true)

		left := time.Now()

		cancel()

		err := contract.Receive(t, "AcquireLock returns", done)
		if !errors.Is(err, pglocker.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want ErrUnknownOutcome and context.Canceled", err)
		}

		if took := time.Since(left); took > time.Second {
			t.Errorf("it took %s to leave", took)
		}

		must(t, stranger.Rollback())
		contract.Await(t, "the grant", func() bool {
			_, held := l.row(t)

			return held
		})
		l.proxy.refuse(false)
		l.wantSettled(t)
	})
}

// TestLateGrantToWhoWaits: who waits goes on waiting after such a grant, for the next,
// however it came: by the first request, by asking again, or by a hand-over.
func TestLateGrantToWhoWaits(t *testing.T) {
	t.Parallel()

	const ttl = 300 * time.Millisecond

	for _, way := range []struct {
		name string
		// heldFor is for how long another holds the lock.
		heldFor time.Duration
		// handedOver: it is held in the same Locker, which lets it go to who waits.
		handedOver bool
	}{
		{name: "first request"},
		{name: "asking again", heldFor: 200 * time.Millisecond},
		{name: "hand-over", handedOver: true},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			eachLossy(t, func(t *testing.T, l *lossy) {
				var (
					ctx    = t.Context()
					late   atomic.Bool
					holder *pglocker.Lock
					err    error
				)

				contract.Exec(t, l.direct, `UPDATE pglocker.lock_statuses SET generation = generation + 1,
					expires_at = clock_timestamp() + $1 * interval '1 microsecond'`, way.heldFor.Microseconds())

				if way.handedOver {
					holder, err = l.locker.Lock(ctx, "a", time.Minute)
					must(t, err)
				}

				before, _ := l.row(t)

				l.proxy.onAnswer(func() fate {
					if generation, held := l.row(t); generation > before && held && !late.Swap(true) {
						time.Sleep(ttl)
					}

					return pass
				})

				locked := make(chan error, 1)

				go func() {
					lock, err := l.locker.Lock(ctx, "a", ttl)
					if err == nil {
						_ = lock.Unlock(ctx) // perhaps its lease is over, too
					}

					locked <- err
				}()

				if way.handedOver {
					contract.Await(t, "somebody waits", func() bool { return l.locker.Waiting("a") })
					must(t, holder.Unlock(ctx))
				}

				if err := contract.Receive(t, "Lock returns", locked); err != nil || !late.Load() {
					t.Errorf("Lock: %v, and a grant came late: %t, want one that came in time after that", err, late.Load())
				}
			})
		})
	}
}

// TestLateGrant: a grant whose reply comes after its lease is none to work under.
func TestLateGrant(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		const ttl = 500 * time.Millisecond

		before, _ := l.row(t)

		l.proxy.onAnswer(func() fate {
			if generation, held := l.row(t); generation > before && held {
				time.Sleep(ttl)
			}

			return pass
		})

		err := l.locker.Do(t.Context(), "a", ttl, ttl/2, func(context.Context) error {
			t.Error("fn was called")

			return nil
		})
		if !errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("Do: %v, want ErrLockLost", err)
		}
	})
}
