package lockertest

import (
	"errors"
	"testing"

	"github.com/ismurov/pglocker"
)

const reason = "lockertest: lost on purpose"

// Lose ends the tenure of a lock that is held, whatever its lease. It returns when the database has released it.
//
// If locker itself holds the lock, the lock's context has ended when Lose returns, with a cause that matches
// [pglocker.ErrLockLost]. A holder in another Locker learns of it from its next renewal, or when it releases.
//
// The lock may be a recipe's: "pglocker:election:NAME" makes the leader lose the election, see
// [pglocker.ReservedPrefix].
//
// Lose fails the test if the lock is free, if another was granted it meanwhile, or if the database can't be asked.
func Lose(tb testing.TB, locker *pglocker.Locker, lockID string) {
	tb.Helper()

	ctx := tb.Context()

	status, err := locker.GetLockStatus(ctx, lockID)
	if err != nil {
		tb.Fatalf("lockertest: losing %q: %v", lockID, err)
	}

	now, err := locker.DatabaseTime(ctx)
	if err == nil && !status.HeldAt(now) {
		err = errors.New("it is free")
	}

	if err == nil {
		err = locker.ForceRelease(ctx, lockID, status.Generation, reason)
	}

	if err != nil {
		tb.Fatalf("lockertest: losing %q: %v", lockID, err)
	}
}
