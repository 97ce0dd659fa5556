package faulttest

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// TestClockOff: a server whose clock is an hour off grants leases that are as long
// as asked for by its own clock, and holders keep theirs.
func TestClockOff(t *testing.T) {
	t.Parallel()

	library := libfaketime(t)

	for _, off := range []string{"+3600s", "-3600s"} {
		t.Run(off, func(t *testing.T) {
			t.Parallel()

			by, err := time.ParseDuration(off)
			contract.Must(t, err)

			server := contract.StartServer(t,
				pgtesting.WithEnv("LD_PRELOAD="+library),
				pgtesting.WithEnv("FAKETIME="+off),
				pgtesting.WithEnv("DONT_FAKE_MONOTONIC=1"))

			contract.EachDriver(t, func(t *testing.T, driver string) {
				db := contract.Open(t, driver, server.URL())

				if seen := time.Until(contract.Now(t, db)); (seen - by).Abs() > time.Minute {
					t.Fatalf("the server's clock is %s off, want %s", seen, by)
				}

				const ttl = 2 * time.Second

				locker := contract.NewLocker(t, driver, server.URL())
				before := contract.Now(t, db)

				status, err := locker.AcquireLock(t.Context(), driver, ttl)
				contract.Must(t, err)

				after := contract.Now(t, db)
				if end := status.ExpiresAt; end.Before(before.Add(ttl)) || end.After(after.Add(ttl)) {
					t.Errorf("granted between %s and %s for %s, until %s", before, after, ttl, end)
				}

				contract.Must(t, locker.ReleaseLock(t.Context(), status))

				k := contract.StartTask(t, locker, driver, ttl, ttl/4)
				granted := k.Lock.Status()

				contract.Await(t, "the lock outlives its first lease", func() bool {
					k.MustHold(t)

					return contract.Now(t, db).After(granted.ExpiresAt)
				})
				k.Finish(t)
			})
		})
	}
}

// libfaketime returns the library's path.
func libfaketime(t *testing.T) string {
	t.Helper()

	for _, pattern := range []string{
		"/usr/lib/*/faketime/libfaketimeMT.so.1",
		"/usr/lib*/faketime/libfaketimeMT.so.1",
		"/usr/local/lib/faketime/libfaketimeMT.so.1",
		"/opt/homebrew/lib/faketime/libfaketimeMT.so.1",
	} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 { // the patterns are right
			return found[0]
		}
	}

	contract.Missing(t, "libfaketime is not installed")

	return ""
}
