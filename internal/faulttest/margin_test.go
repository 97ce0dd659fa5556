package faulttest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

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
		contract.Must(t, err)
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
		contract.Must(t, err)

		stranger := contract.LockRows(t, l.direct, "%")

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
		contract.Must(t, stranger.Rollback())

		last := lock.Status().ExpiresAt

		contract.Await(t, "a renewal", func() bool {
			return lock.Context().Err() != nil || lock.Status().ExpiresAt.After(last)
		})

		if lock.Context().Err() != nil {
			t.Errorf("the lock was lost: %v", context.Cause(lock.Context()))
		}

		contract.Must(t, lock.Unlock(t.Context()))
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
		contract.Must(t, err)
		t.Cleanup(func() {
			l.proxy.cutAll()
			contract.CloseLocker(t, locker)
		})

		lock, err := locker.TryLock(t.Context(), "a", 4*time.Second, pglocker.WithRelockInterval(3*time.Second))
		contract.Must(t, err)
		l.proxy.onAnswer(func() fate { return mute })

		contract.Receive(t, "the lock is lost", lock.Context().Done())

		left := lock.Status().ExpiresAt.Sub(contract.Now(t, l.direct))
		if least := margin - 100*time.Millisecond; left < least {
			t.Errorf("the holder believed until %s before the end of its lease, want %s or more", left, least)
		}
	})
}
