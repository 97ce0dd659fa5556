package pglocker_test

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
)

// TestGiveBacksShareAStatement: while a row is locked for long, every request that waits
// for it in vain leaves a grant to be given back. However many they are, one statement
// waits for the row, and it frees whichever of them comes to be granted.
func TestGiveBacksShareAStatement(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const grants = 20

		var (
			ctx    = t.Context()
			url    = newDatabase(t)
			locker = newLocker(t, driver, url)
			direct = contract.Open(t, "pgx", url)
			names  []string
		)

		created, err := locker.CreateLock(ctx, "a")
		must(t, err)

		stranger := lockRows(t, direct, "%")

		for range grants {
			names = append(names, locker.GrantName())
			locker.GiveBack("a", names[len(names)-1], time.Minute)
		}

		contract.Await(t, "the row is waited for", func() bool { return rowWaits(t, direct) > 0 })

		// Each on its own would have come as far: all began at the same time.
		for range 20 {
			if n := rowWaits(t, direct); n > 1 {
				t.Fatalf("%d statements wait for the row to give %d grants back, want one", n, grants)
			}
		}

		// The one that is on its way comes through.
		_, err = stranger.ExecContext(ctx, `UPDATE pglocker.lock_statuses
			SET generation = 2, owner = $1, expires_at = clock_timestamp() + interval '1 hour'`, names[grants/2])
		must(t, err)
		must(t, stranger.Commit())

		contract.Await(t, "it is given back", func() bool {
			status, err := locker.GetLockStatus(ctx, "a")
			must(t, err)

			return status.Owner == "" && status.Generation > created.Generation+1
		})

		// What comes later, when all that was there is settled, is given back as well.
		status, err := locker.AcquireLock(ctx, "a", time.Hour)
		must(t, err)
		locker.GiveBack("a", status.Owner, time.Minute)

		contract.Await(t, "another is given back", func() bool {
			now, err := locker.GetLockStatus(ctx, "a")
			must(t, err)

			return now.Owner == ""
		})
	})
}
