package faulttest

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

// slotsHeld is how many rows of the family of a gate are held, and the gate's generation.
func (l *lossy) slotsHeld(t *testing.T, family string) (held, gate int64) {
	t.Helper()

	// Not with t's context: the proxy asks while a test ends, too.
	err := l.direct.QueryRow(`SELECT count(CASE WHEN expires_at > clock_timestamp() THEN 1 END),
		coalesce(max(CASE WHEN lock_id = $1 || 'gate' THEN generation END), 0)
		FROM pglocker.lock_statuses WHERE starts_with(lock_id, $1)`, family).Scan(&held, &gate)
	if err != nil {
		t.Error(err)
	}

	return held, gate
}

// loseGrant loses the reply to the next grant in the family. then is called when that is lost.
func (l *lossy) loseGrant(t *testing.T, family string, how fate, then func()) {
	t.Helper()

	_, before := l.slotsHeld(t, family)

	var lost atomic.Bool

	l.proxy.onAnswer(func() fate {
		if _, gate := l.slotsHeld(t, family); gate == before || !lost.CompareAndSwap(false, true) {
			return pass
		}

		then()

		return how
	})
}

// TestSemaphoreWithLostReply: the connection breaks before the reply to a grant of two permits. It is
// found by its name, and two are held, not four.
func TestSemaphoreWithLostReply(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		const family = "pglocker:semaphore:a:"

		ctx := t.Context()
		s, err := l.locker.NewSemaphore("a", 5)
		contract.Must(t, err)

		p, err := s.TryAcquire(ctx, time.Minute, pglocker.WithPermits(4))
		contract.Must(t, err)
		contract.Must(t, p.Unlock(ctx))
		l.loseGrant(t, family, cut, func() {})

		p, err = s.TryAcquire(ctx, time.Minute, pglocker.WithPermits(2))
		held, gate := l.slotsHeld(t, family)

		switch {
		case held != 2:
			t.Errorf("%d permits are held, want 2", held)
		case l.owners && (err != nil || p.Token() != gate):
			t.Errorf("%v, the gate shows generation %d; want the grant settled", err, gate)
		case !l.owners && !errors.Is(err, pglocker.ErrUnknownOutcome):
			t.Errorf("%v, want ErrUnknownOutcome", err)
		case l.owners:
			contract.Must(t, p.Unlock(ctx))

			if held, _ := l.slotsHeld(t, family); held > 0 {
				t.Errorf("%d permits are held after Unlock", held)
			}
		}
	})
}

// TestSemaphoreWithSilence: the reply never comes, until the caller gives up. Its permits are returned.
func TestSemaphoreWithSilence(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		const family = "pglocker:semaphore:a:"

		s, err := l.locker.NewSemaphore("a", 3)
		contract.Must(t, err)

		p, err := s.TryAcquire(t.Context(), time.Minute, pglocker.WithPermits(3))
		contract.Must(t, err)
		contract.Must(t, p.Unlock(t.Context()))

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()

		l.loseGrant(t, family, mute, cancel)

		_, err = s.TryAcquire(ctx, time.Minute, pglocker.WithPermits(2))
		if !errors.Is(err, pglocker.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want ErrUnknownOutcome and context.Canceled", err)
		}

		if l.owners {
			contract.Await(t, "the permits are returned", func() bool {
				held, _ := l.slotsHeld(t, family)

				return held == 0
			})
		}
	})
}

// TestDowngradeWithLostReply: the writer became a reader, and its connection broke.
func TestDowngradeWithLostReply(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		const family = "pglocker:rwlock:a:"

		ctx := t.Context()
		rw, err := l.locker.NewRWLock("a")
		contract.Must(t, err)

		reader, err := rw.RLock(ctx, time.Minute)
		contract.Must(t, err)
		contract.Must(t, reader.Unlock(ctx))

		writer, err := rw.Lock(ctx, time.Minute)
		contract.Must(t, err)
		l.loseGrant(t, family, cut, func() {})

		reader, err = writer.Downgrade(ctx)
		held, gate := l.slotsHeld(t, family)

		switch {
		case held != 1:
			t.Errorf("%d rows are held, want a reader", held)
		case l.owners && (err != nil || reader.Token() != gate):
			t.Errorf("%v, the gate shows generation %d; want the grant settled", err, gate)
		case !l.owners && !errors.Is(err, pglocker.ErrUnknownOutcome):
			t.Errorf("%v, want ErrUnknownOutcome", err)
		case l.owners:
			contract.Must(t, reader.Unlock(ctx))
		}

		if lost := l.watcher.Lost(family + "w"); len(lost) > 0 || errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("%v, and losses are told: %v; the writer has ended its tenure itself", err, lost)
		}
	})
}

// TestSlotsInStricterLevels: where transactions are serializable by default, grants that meet are
// repeated. Never more than two hold a permit, and a writer is alone.
func TestSlotsInStricterLevels(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		for name, columns := range map[string]string{"six columns": "", "three columns": contract.ThreeColumns} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()

				url := contract.NewDatabase(t)
				admin := contract.Open(t, driver, url)
				contract.MakeTable(t, admin, columns)
				setDefault(t, admin, "default_transaction_isolation", "serializable")

				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()

				var (
					permits, readers, writers atomic.Int64
					all                       sync.WaitGroup
				)

				for range 2 {
					locker, err := pglocker.New(contract.Open(t, driver, url), &pglocker.Config{})
					contract.Must(t, err)
					t.Cleanup(func() { contract.CloseLocker(t, locker) })

					s, err := locker.NewSemaphore("a", 2)
					contract.Must(t, err)

					rw, err := locker.NewRWLock("a")
					contract.Must(t, err)

					for i := range 3 {
						all.Go(func() {
							for round := range 4 {
								err := s.Do(ctx, time.Minute, 10*time.Millisecond, func(context.Context) error {
									defer permits.Add(-1)

									if n := permits.Add(1); n > 2 {
										t.Errorf("%d hold a permit", n)
									}

									return nil
								}, pglocker.WithWait(pglocker.Forever))
								if err != nil {
									t.Errorf("semaphore: %v", err)
								}

								lock, beside, others := rw.RLock, &readers, &writers
								if (i+round)%3 == 0 {
									lock, beside, others = rw.Lock, &writers, &readers
								}

								a, err := lock(ctx, time.Minute)
								if err != nil {
									t.Errorf("read-write lock: %v", err)

									return
								}

								n, strangers := beside.Add(1), others.Load()
								if strangers > 0 || !a.Reading() && n > 1 {
									t.Errorf("%d and %d hold the lock, reading %t", n, strangers, a.Reading())
								}

								beside.Add(-1)

								if err := a.Unlock(ctx); err != nil {
									t.Errorf("Unlock: %v", err)
								}
							}
						})
					}
				}

				all.Wait()
			})
		}
	})
}
