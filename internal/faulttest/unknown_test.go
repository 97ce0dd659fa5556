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

// An answer that is lost leaves open what was done. What is not known is never
// reported as held, and never as free; it is settled where the table has a column
// for the owner, and left to expire where it has not.

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
		contract.Must(t, err)
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
		contract.Must(t, err)
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

// TestGrantAfterTheCallerLeft: a caller leaves while its statement waits for the
// row, and nobody can tell the server. It returns at once; the grant that comes
// afterwards is given back.
func TestGrantAfterTheCallerLeft(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		stranger := contract.LockRows(t, l.direct, "%")

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)

		go func() {
			_, err := l.locker.AcquireLock(ctx, "a", time.Minute)
			done <- err
		}()

		contract.Await(t, "the statement waits for the row", func() bool {
			return contract.RowWaits(t, l.direct) > 0
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

		contract.Must(t, stranger.Rollback())
		contract.Await(t, "the grant", func() bool {
			_, held := l.row(t)

			return held
		})
		l.proxy.refuse(false)
		l.wantSettled(t)
	})
}
