package store_test

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestClaimMeetsRelease: a claim that waits for the row while a release commits
// takes the lock. The release saw no mark, so nobody would be notified.
func TestClaimMeetsRelease(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := t.Context()
		s, db := newStore(t, driver)

		if _, err := s.Acquire(ctx, "a", "me", ttl, margin); err != nil {
			t.Fatal(err)
		}

		release := lockRow(t, db, "a")
		if _, err := release.ExecContext(ctx, "UPDATE "+table.String()+
			" SET generation = generation + 1, expires_at = clock_timestamp(), owner = NULL"); err != nil {
			t.Fatal(err)
		}

		type answer struct {
			res store.Result
			err error
		}

		answers := make(chan answer, 1)

		go func() {
			res, err := s.Claim(ctx, "a", "you", ttl, margin, store.Mark{For: 10 * time.Second})
			answers <- answer{res, err}
		}()

		awaitBlocked(t, db)

		if err := release.Commit(); err != nil {
			t.Fatal(err)
		}

		got := contract.Receive(t, "the claim is answered", answers)
		if got.err != nil || got.res.Verdict != store.Granted {
			t.Errorf("a claim that met a release: verdict %d, %v, want it granted", got.res.Verdict, got.err)
		}
	})
}

// TestGiveBackBehind: a grant that still waits for the row when it is given back
// is freed once it has come.
func TestGiveBackBehind(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := t.Context()
		s, db := newStore(t, driver)

		if _, err := s.Create(ctx, "a"); err != nil {
			t.Fatal(err)
		}

		stranger := lockRow(t, db, "a")
		blocked := func(n int) func() bool {
			return func() bool {
				return contract.Query[int](t, db, `SELECT count(*) FROM pg_stat_activity
					WHERE datname = current_database() AND wait_event_type = 'Lock'`) == n
			}
		}

		ends := make(chan error, 2)

		go func() {
			_, err := s.Acquire(ctx, "a", "me", ttl, margin)
			ends <- err
		}()

		contract.Await(t, "the grant waits", blocked(1))

		go func() {
			freed, err := s.GiveBack(ctx, []string{"a"}, []string{"other", "me"}, true)
			if err == nil && len(freed) == 0 {
				t.Error("nothing was freed")
			}

			ends <- err
		}()

		contract.Await(t, "both wait", blocked(2))

		if err := stranger.Rollback(); err != nil {
			t.Fatal(err)
		}

		for range 2 {
			if err := contract.Receive(t, "both are done", ends); err != nil {
				t.Error(err)
			}
		}

		res, err := s.Get(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}

		if res.Row.Held() || res.Row.Generation < 3 {
			t.Errorf("the row is %+v, want it granted and freed", res.Row)
		}
	})
}

// TestRenewNeverShortens: a renewal for a shorter time leaves the lease as it is,
// and of two for the same lease the longer counts.
func TestRenewNeverShortens(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := t.Context()
		s, _ := newStore(t, driver)

		held, err := s.Acquire(ctx, "a", "me", time.Minute, margin)
		if err != nil {
			t.Fatal(err)
		}

		renewal := func(ttl time.Duration) store.Renewal {
			return store.Renewal{LockID: "a", Generation: held.Row.Generation, TTL: ttl}
		}

		for _, renewals := range [][]store.Renewal{
			{renewal(time.Second)},
			{renewal(time.Second), renewal(time.Hour)},
			{renewal(time.Minute)},
		} {
			results, _, err := s.Renew(ctx, renewals, nil)
			if err != nil {
				t.Fatal(err)
			}

			if results[0].State != store.Renewed || results[0].ExpiresAt.Before(held.Row.ExpiresAt) {
				t.Errorf("after %v the lease ends at %s, before %s", renewals, results[0].ExpiresAt, held.Row.ExpiresAt)
			}
		}

		res, err := s.Get(ctx, "a")
		if err != nil {
			t.Fatal(err)
		}

		if left := res.Row.Remaining(); left < 59*time.Minute {
			t.Errorf("%s are left, want the longest that was asked for", left)
		}
	})
}
