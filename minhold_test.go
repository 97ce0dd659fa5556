package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestMinHoldAfterFailure: a minimum hold is kept after a failure too. The error of another caller
// says what keeps the lock, though it has no holder.
func TestMinHoldAfterFailure(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		var (
			ctx    = t.Context()
			locker = contract.NewLocker(t, driver, contract.NewDatabase(t))
			failed = errors.New("the job failed")
			token  int64
		)

		err := locker.Do(ctx, "a", time.Minute, 30*time.Second, func(ctx context.Context) error {
			token, _ = pglocker.Token(ctx)

			_, err := locker.TryLock(context.WithoutCancel(t.Context()), "a", time.Minute)
			if want := fmt.Sprintf(`"a" is held by %s`, locker.Name()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("while the job runs: %v, want %q", err, want)
			}

			return failed
		}, pglocker.WithMinHold(time.Hour))
		if !errors.Is(err, failed) {
			t.Errorf("Do: %v, want what the job returned", err)
		}

		for range 2 {
			_, err = locker.TryLock(ctx, "a", time.Minute, pglocker.WithWait(100*time.Millisecond))

			var held *pglocker.HeldError
			if !errors.As(err, &held) || held.Owner != "" || held.Generation != token+1 || held.Remaining < 50*time.Minute {
				t.Errorf("after the job: %v, want a lock that is held for an hour, and by nobody", err)
			}

			want := fmt.Sprintf(`"a" is held until its minimum hold ends, token %d, for another `, token+1)
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("after the job: %v, want %q", err, want)
			}
		}
	})
}

// TestMinHoldsUnlockedTogether: locks with a minimum hold keep it when many are unlocked at
// the same moment.
func TestMinHoldsUnlockedTogether(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const locks = 30

		url := contract.NewDatabase(t)
		locker := contract.NewLocker(t, driver, url)

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
