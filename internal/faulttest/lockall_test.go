package faulttest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// otherIsHeld reports whether the server shows the lock "b" held.
func (l *lossy) otherIsHeld(t *testing.T) bool {
	t.Helper()

	return contract.Query[bool](t, l.direct, `SELECT EXISTS (SELECT FROM pglocker.lock_statuses
		WHERE lock_id = 'b' AND expires_at > clock_timestamp())`)
}

// TestLockAllWithLostReply: the connection breaks before the reply to a grant of two locks.
func TestLockAllWithLostReply(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		contract.Must(t, contract.Second(l.locker.CreateLock(t.Context(), "b")))
		l.loseWhen(t, cut, 1)

		multi, err := l.locker.TryLockAll(t.Context(), []string{"b", "a"}, time.Minute)
		generation, held := l.row(t)

		switch {
		case l.owners && (err != nil || !held || multi.Tokens()["a"] != generation):
			t.Errorf("%v, the database shows generation %d, held %t; want the grant settled", err, generation, held)
		case !l.owners && !errors.Is(err, pglocker.ErrUnknownOutcome):
			t.Errorf("%v, want ErrUnknownOutcome", err)
		case !l.owners && !held:
			t.Error("a grant that may be somebody else's was taken back")
		case l.owners:
			contract.Must(t, multi.Unlock(t.Context()))
		}

		if held := l.otherIsHeld(t); held == l.owners {
			t.Errorf("the other lock is held: %t", held)
		}
	})
}

// TestLockAllWithSilence: the reply never comes, until the caller gives up. Both locks are returned.
func TestLockAllWithSilence(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		contract.Must(t, contract.Second(l.locker.CreateLock(t.Context(), "b")))

		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()

		var lost atomic.Bool

		before, _ := l.row(t)

		l.proxy.onAnswer(func() fate {
			if generation, _ := l.row(t); generation == before || !lost.CompareAndSwap(false, true) {
				return pass
			}

			cancel()

			return mute
		})

		_, err := l.locker.TryLockAll(ctx, []string{"b", "a"}, time.Minute)
		if !errors.Is(err, pglocker.ErrUnknownOutcome) || !errors.Is(err, context.Canceled) {
			t.Errorf("%v, want ErrUnknownOutcome and context.Canceled", err)
		}

		l.wantSettled(t)

		if l.owners {
			contract.Await(t, "the other is given back", func() bool { return !l.otherIsHeld(t) })
		}
	})
}

// TestUnlockAllWithLostReply: the locks were held until Unlock, whose reply is lost.
func TestUnlockAllWithLostReply(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		multi, err := l.locker.TryLockAll(t.Context(), []string{"b", "a"}, time.Minute)
		contract.Must(t, err)
		l.loseWhen(t, cut, 1)
		contract.Must(t, multi.Unlock(t.Context()))

		if _, held := l.row(t); held || l.otherIsHeld(t) {
			t.Error("a lock is held after Unlock")
		}
	})
}
