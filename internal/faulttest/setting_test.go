package faulttest

import (
	"net/url"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestDateStyle: times are read right where a database writes them in another style than ISO,
// also in pgx's modes that get them as text.
func TestDateStyle(t *testing.T) {
	t.Parallel()

	const ttl = 10 * time.Second

	for _, way := range []struct{ driver, mode string }{
		{"postgres", ""}, {"pgx", ""}, {"pgx", "simple_protocol"}, {"pgx", "exec"},
	} {
		for _, style := range []string{"SQL, DMY", "Postgres, MDY", "German, DMY"} {
			t.Run(way.driver+" "+way.mode+", "+style, func(t *testing.T) {
				t.Parallel()

				databaseURL := contract.NewDatabase(t)
				admin := contract.Open(t, "pgx", databaseURL)
				setDefault(t, admin, "DateStyle", style)
				setDefault(t, admin, "TimeZone", "Asia/Kolkata")

				u, err := url.Parse(databaseURL)
				contract.Must(t, err)

				if way.mode != "" {
					q := u.Query()
					q.Set("default_query_exec_mode", way.mode)
					u.RawQuery = q.Encode()
				}

				// lib/pq sets a style of its own.
				if got := contract.Query[string](t, contract.Open(t, way.driver, u.String()), "SHOW DateStyle"); got != style &&
					way.driver == "pgx" {
					t.Fatalf("the style is %q, want %q", got, style)
				}

				locker := contract.NewLocker(t, way.driver, u.String())
				before := contract.Now(t, admin)

				lock, err := locker.TryLock(t.Context(), "a", ttl, pglocker.WithRelockInterval(50*time.Millisecond))
				contract.Must(t, err)

				granted := lock.Status()
				if end := granted.ExpiresAt; end.Before(before.Add(ttl)) || end.After(contract.Now(t, admin).Add(ttl)) {
					t.Errorf("granted at %s for %s, until %s", before, ttl, end)
				}

				contract.Await(t, "a renewal", func() bool { return lock.Status().ExpiresAt.After(granted.ExpiresAt) })
				contract.Must(t, lock.Unlock(t.Context()))

				want := contract.Query[time.Time](t, admin, "SELECT expires_at FROM pglocker.lock_statuses")
				if got, err := locker.GetLockStatus(t.Context(), "a"); err != nil || !got.ExpiresAt.Equal(want) {
					t.Errorf("the lock is released as of %+v, %v, want %s", got, err, want)
				}
			})
		}
	}
}
