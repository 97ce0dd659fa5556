package lockertest

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// Owner is the [pglocker.Config] Owner of who holds the locks that [Take] takes.
const Owner = "lockertest: another holder"

// rivalTTL is longer than a test is paused for in a debugger's step.
const rivalTTL = time.Minute

// Take takes a lock as another process would that holds it from now on, and returns it. If the lock is held, its
// holder loses it without being told: until its next renewal it believes that it holds the lock, as a process does
// that was paused. The guard and the fencing token must stop its writes meanwhile. A minimum hold ends, too.
//
// db leads to the locks, and cfg says which table they are in. The other holder's Owner is [Owner].
//
// The lock is renewed until its Unlock is called, or until the test and its subtests have ended. db must still be open
// then: close it in a Cleanup from before Take, not by defer. Otherwise the test fails, and the lock is held for up to
// a minute.
//
// Take fails the test if lockID is that of a recipe's row ([pglocker.ErrReservedLockID]), if cfg is wrong, or if the
// database can't be asked.
func Take(tb testing.TB, db *sql.DB, cfg *pglocker.Config, lockID string) *pglocker.Lock {
	tb.Helper()

	lock, err := take(tb, db, cfg, lockID)
	if err != nil {
		tb.Fatalf("lockertest: taking %q: %v", lockID, err)
	}

	return lock
}

func take(tb testing.TB, db *sql.DB, cfg *pglocker.Config, lockID string) (*pglocker.Lock, error) {
	if cfg == nil {
		return nil, pglocker.ErrConfigIsNil
	}

	rival := *cfg
	rival.Owner = Owner

	locker, err := pglocker.New(db, &rival)
	if err != nil {
		return nil, err
	}

	var lock *pglocker.Lock

	tb.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), rivalTTL)
		defer cancel()

		// Close alone doesn't say that a lock stays held, because db was closed, say.
		if lock != nil {
			if err := lock.Unlock(ctx); err != nil && !errors.Is(err, pglocker.ErrAlreadyUnlocked) && !errors.Is(err, pglocker.ErrLockLost) {
				tb.Errorf("lockertest: releasing %q: %v", lockID, err)
			}
		}

		if err := locker.Close(ctx); err != nil {
			tb.Errorf("lockertest: releasing %q: %v", lockID, err)
		}
	})

	// Waiters may be faster than this one.
	for ctx := tb.Context(); ; {
		lock, err = locker.TryLock(ctx, lockID, rivalTTL)

		held := new(pglocker.HeldError)
		if !errors.As(err, &held) {
			return lock, err
		}

		err = locker.ForceRelease(ctx, lockID, held.Generation, reason)
		if err != nil && !errors.Is(err, pglocker.ErrWrongGeneration) {
			return nil, err
		}
	}
}
