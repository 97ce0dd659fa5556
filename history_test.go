package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// newHistory returns a locker on a table with a history, and its handle.
func newHistory(t *testing.T, driver, databaseURL string, cfg *pglocker.Config) (*pglocker.Locker, *sql.DB) {
	t.Helper()

	db := contract.Open(t, driver, databaseURL)
	contract.Must(t, pglocker.MigrateHistory(t.Context(), db, cfg))

	locker, err := pglocker.New(db, cfg)
	contract.Must(t, err)
	t.Cleanup(func() { contract.CloseLocker(t, locker) })

	return locker, db
}

// eventsOf are all events that History yields.
func eventsOf(t *testing.T, locker *pglocker.Locker, lockID string, since time.Time) (events []pglocker.Event) {
	t.Helper()

	for e, err := range locker.History(t.Context(), lockID, since) {
		contract.Must(t, err)

		events = append(events, e)
	}

	return events
}

// kindsOf are the events as text: kind and token, without the floor of the tokens.
func kindsOf(events []pglocker.Event) string {
	var kinds []string
	for _, e := range events {
		kinds = append(kinds, fmt.Sprintf("%s %d", e.Kind, e.Token%(1<<40)))
	}

	return strings.Join(kinds, ", ")
}

// eachShape runs a test on tables of six and of three columns, with each driver.
func eachShape(t *testing.T, test func(t *testing.T, driver, databaseURL string, full bool)) {
	for _, columns := range []string{"", contract.ThreeColumns} {
		contract.EachDriver(t, func(t *testing.T, driver string) {
			t.Run(fmt.Sprintf("own columns %t", columns != ""), func(t *testing.T) {
				t.Parallel()

				databaseURL := contract.NewDatabase(t)
				contract.MakeTable(t, contract.Open(t, driver, databaseURL), columns)
				test(t, driver, databaseURL, columns == "")
			})
		})
	}
}

// end ends the lease of a lock, as time would.
func end(t *testing.T, db *sql.DB, lockID string) {
	t.Helper()
	contract.Exec(t, db, "UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp() WHERE lock_id = $1", lockID)
}

// TestHistoryKinds: each kind of event is written once, under the token that it is about.
func TestHistoryKinds(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, driver, databaseURL string, full bool) {
		ctx := t.Context()
		locker, db := newHistory(t, driver, databaseURL, &pglocker.Config{Owner: "me"})
		began := contract.Now(t, db)

		acquire := func() *pglocker.LockStatus {
			status, err := locker.AcquireLock(ctx, "a", time.Minute)
			contract.Must(t, err)

			return status
		}

		// Granted, refreshed, released.
		first := acquire() // 2
		second, err := locker.RefreshLock(ctx, first, time.Minute)
		contract.Must(t, err)
		contract.Must(t, locker.ReleaseLock(ctx, second)) // 3, the row has 4

		// A crash.
		crashed := acquire() // 5
		end(t, db, "a")

		expiredAt := contract.Query[time.Time](t, db, "SELECT expires_at FROM pglocker.lock_statuses WHERE lock_id = 'a'").UTC()

		// It returns too late.
		late := acquire() // 6
		end(t, db, "a")
		contract.Must(t, locker.ReleaseLock(ctx, late))

		// Released by force.
		forced := acquire() // 8
		contract.Exec(t, db, `UPDATE pglocker.lock_statuses SET generation = generation + 1, expires_at = clock_timestamp()`+
			map[bool]string{true: ", owner = NULL, acquired_at = NULL"}[full]+
			` WHERE lock_id = 'a' AND set_config($1, 'it hung', true) <> ''`, store.ForcedSetting)

		// Neither is an event: a renewal, a refused request, a lock that is only created, a free lock's release.
		held, err := locker.TryLock(ctx, "b", 3*time.Second)
		contract.Must(t, err)
		contract.Exec(t, db, "UPDATE pglocker.lock_statuses SET expires_at = expires_at + interval '1 hour' WHERE lock_id = 'b'")

		if _, err := locker.AcquireLock(ctx, "b", time.Minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
			t.Errorf("%v, want ErrAlreadyLocked", err)
		}

		created, err := locker.CreateLock(ctx, "c")
		contract.Must(t, err)
		contract.Must(t, locker.ReleaseLock(ctx, created))
		contract.Must(t, held.Unlock(ctx))

		// Deleted while it is free.
		contract.Exec(t, db, "DELETE FROM pglocker.lock_statuses WHERE lock_id = 'a'")

		events := eventsOf(t, locker, "a", time.Time{})
		want := "granted 2, refreshed 3, released 3, granted 5, expired 5, granted 6, expired 6, released 6, granted 8, forced 8, deleted 9"

		if got := kindsOf(events); got != want {
			t.Fatalf("the history of a is\n%s\nwant\n%s", got, want)
		}

		if got := kindsOf(eventsOf(t, locker, "b", time.Time{})); got != "granted 2, released 2" {
			t.Errorf("the history of b is %s", got)
		}

		if got := kindsOf(eventsOf(t, locker, "c", time.Time{})); got != "" {
			t.Errorf("the history of c is %s, want none", got)
		}

		granted := events[3]
		if wanted := (pglocker.Event{
			Kind: pglocker.EventGranted, LockID: "a", Token: crashed.Generation, PreviousToken: events[2].Token + 1,
			Owner: crashed.Owner, At: granted.At, ExpiresAt: crashed.ExpiresAt,
		}); granted != wanted || granted.At.Before(began) || granted.At.After(contract.Now(t, db)) {
			t.Errorf("the grant is %+v, want %+v", granted, wanted)
		}

		if e := events[4]; !e.At.Equal(expiredAt) || !e.ExpiresAt.Equal(expiredAt) || e.Owner != crashed.Owner || e.Token != crashed.Generation {
			t.Errorf("the expiry is %+v, want at %s", e, expiredAt)
		}

		if e := events[9]; e.Reason != "it hung" || e.Owner != forced.Owner || e.Token != forced.Generation {
			t.Errorf("the forced release is %+v", e)
		}

		if events[1].PreviousToken != first.Generation || events[0].PreviousToken != 0 {
			t.Errorf("previous tokens are %d and %d", events[0].PreviousToken, events[1].PreviousToken)
		}
	})
}

// TestHistoryOfHandOvers: a hand-over is a release and a grant, in one statement, and tokens are in order.
func TestHistoryOfHandOvers(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, driver, databaseURL string, full bool) {
		first, _ := newHistory(t, driver, databaseURL, &pglocker.Config{Owner: "first"})
		second, _ := newHistory(t, driver, databaseURL, &pglocker.Config{Owner: "second"})

		var (
			tasks  sync.WaitGroup
			mu     sync.Mutex
			tokens []int64
		)

		for i := range 16 {
			locker := []*pglocker.Locker{first, second}[i%2]

			tasks.Go(func() {
				for range 5 {
					err := locker.Do(t.Context(), "a", time.Minute, 20*time.Second, func(ctx context.Context) error {
						lock, _ := pglocker.FromContext(ctx)

						mu.Lock()
						defer mu.Unlock()

						tokens = append(tokens, lock.Token())

						return nil
					}, pglocker.WithWait(time.Minute))
					if err != nil {
						t.Error(err)
					}
				}
			})
		}

		tasks.Wait()

		var granted, ended []int64

		last := int64(0)

		for _, e := range eventsOf(t, first, "a", time.Time{}) {
			if e.Token < last {
				t.Errorf("token %d follows on %d", e.Token, last)
			}

			last = e.Token

			switch e.Kind {
			case pglocker.EventGranted:
				granted = append(granted, e.Token)
			case pglocker.EventRefreshed: // what a hand-over looks like on three columns
				if full {
					t.Errorf("%+v", e)
				}

				granted, ended = append(granted, e.Token), append(ended, e.PreviousToken)
			case pglocker.EventReleased:
				ended = append(ended, e.Token)
			default:
				t.Errorf("%+v", e)
			}
		}

		// A grant that nobody wanted any more may be among those of the history.
		for _, token := range tokens {
			if !slices.Contains(granted, token) || !slices.Contains(ended, token) {
				t.Errorf("the tenure of token %d isn't in the history", token)
			}
		}

		if !slices.Equal(granted, ended) {
			t.Errorf("tenures begin with %d and end with %d", granted, ended)
		}
	})
}

// TestHistorySince: events are read from a time on, a page at a time, for one lock and for all.
func TestHistorySince(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		databaseURL := contract.NewDatabase(t)
		contract.MakeTable(t, contract.Open(t, driver, databaseURL), "")
		locker, db := newHistory(t, driver, databaseURL, &pglocker.Config{})

		// Two pages and one event more, a second apart. Of each lock two events have the same time.
		const events = 2*pglocker.HistoryPage + 1

		zero := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		contract.Exec(t, db, fmt.Sprintf(`INSERT INTO pglocker.lock_history (at, lock_id, kind, token, expires_at)
			SELECT timestamptz '2026-01-01 00:00:00+00' + n / 2 * interval '1 s', lock_id, 'granted', n, 'infinity'
			  FROM generate_series(0, %d) AS n, unnest(ARRAY['a', 'b']) AS lock_id ORDER BY n`, events-1))

		check := func(lockID string, since time.Time, first, times int) {
			t.Helper()

			got := eventsOf(t, locker, lockID, since)
			if len(got) != (events-first)*times {
				t.Fatalf("%d events of %q since %s, want %d", len(got), lockID, since, (events-first)*times)
			}

			for i, e := range got {
				if n := int64(first + i%(events-first)); e.Token != n {
					t.Fatalf("event %d of %q since %s is %+v, want token %d", i, lockID, since, e, n)
				}
			}
		}

		for _, of := range []struct {
			lockID string
			times  int
		}{{"a", 1}, {"", 2}} {
			check(of.lockID, time.Time{}, 0, of.times)
			check(of.lockID, zero.Add(-time.Hour), 0, of.times)
			check(of.lockID, zero, 0, of.times)
			check(of.lockID, zero.Add(1), 2, of.times)
			check(of.lockID, zero.Add(200*time.Second), 400, of.times)
			check(of.lockID, zero.Add(200*time.Second+time.Microsecond), 402, of.times)
			check(of.lockID, time.Now().Add(100*365*24*time.Hour), events, of.times)
		}

		check("none", time.Time{}, events, 1)

		// An expiry is written later than its time, and hides nothing that was written before.
		contract.Exec(t, db, `INSERT INTO pglocker.lock_history (at, lock_id, kind, token, expires_at)
			VALUES ('2026-01-01 00:00:00+00', 'a', 'expired', 1, now())`)
		check("a", zero.Add(time.Second), 2, 1)

		// Who stops reading leaves nothing behind.
		for e, err := range locker.History(t.Context(), "a", time.Time{}) {
			contract.Must(t, err)

			if e.Token == 3 {
				break
			}
		}

		ctx, cancel := context.WithCancel(t.Context())
		cancel()

		for _, err := range locker.History(ctx, "a", time.Time{}) {
			if !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want context.Canceled", err)
			}
		}

		// Old events are deleted, by the database's clock.
		contract.Exec(t, db, "UPDATE pglocker.lock_history SET at = now() - interval '1 hour' WHERE token >= 700 AND lock_id = 'a'")

		deleted, err := locker.PruneHistory(t.Context(), 2*time.Hour)
		contract.Must(t, err)

		if left := len(eventsOf(t, locker, "", time.Time{})); left != events-700 || deleted != 2*events+1-int64(left) {
			t.Errorf("%d events were deleted and %d are left, want %d", deleted, left, events-700)
		}

		if _, err := locker.PruneHistory(t.Context(), -1); !errors.Is(err, pglocker.ErrInvalidAge) {
			t.Errorf("%v, want ErrInvalidAge", err)
		}
	})
}

// TestPruneHistoryInBatches: more than one statement deletes.
func TestPruneHistoryInBatches(t *testing.T) {
	t.Parallel()

	databaseURL := contract.NewDatabase(t)
	contract.MakeTable(t, contract.Open(t, "pgx", databaseURL), "")
	locker, db := newHistory(t, "pgx", databaseURL, &pglocker.Config{})

	contract.Exec(t, db, `INSERT INTO pglocker.lock_history (at, lock_id, kind, token, expires_at)
		SELECT now() - n * interval '1 minute', 'a', 'granted', n, now() FROM generate_series(1, 12000) AS n`)

	deleted, err := locker.PruneHistory(t.Context(), 100*time.Minute)
	contract.Must(t, err)

	if left := contract.Query[int](t, db, "SELECT count(*) FROM pglocker.lock_history WHERE token < 100"); deleted != 11901 || left != 99 {
		t.Errorf("%d were deleted, %d are left", deleted, left)
	}
}

// TestHolderAt: who held it at 03:12, and did it crash?
func TestHolderAt(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, driver, databaseURL string, full bool) {
		ctx := t.Context()
		locker, db := newHistory(t, driver, databaseURL, &pglocker.Config{Owner: "me"})

		holderAt := func(at time.Time) *pglocker.Tenure {
			t.Helper()

			tenure, err := locker.HolderAt(ctx, "a", at)
			contract.Must(t, err)

			return tenure
		}
		nobodyAt := func(at time.Time) {
			t.Helper()

			if tenure, err := locker.HolderAt(ctx, "a", at); !errors.Is(err, pglocker.ErrNoHolder) {
				t.Errorf("at %s: %+v, %v, want ErrNoHolder", at, tenure, err)
			}
		}
		acquire := func() (*pglocker.LockStatus, time.Time) {
			status, err := locker.AcquireLock(ctx, "a", time.Hour)
			contract.Must(t, err)

			return status, contract.Now(t, db)
		}

		before := contract.Now(t, db)
		nobodyAt(before)

		released, atReleased := acquire()
		if got := holderAt(atReleased); got.Token != released.Generation || got.End != "" || !got.Until.Equal(released.ExpiresAt) || got.Owner != released.Owner {
			t.Errorf("%+v, want what holds the lock now, %+v", got, released)
		}

		contract.Must(t, locker.ReleaseLock(ctx, released))

		free := contract.Now(t, db)
		nobodyAt(before)
		nobodyAt(free)

		crashed, atCrashed := acquire()
		end(t, db, "a")

		// Nobody was granted the lock since, so the row tells.
		ended := contract.Query[time.Time](t, db, "SELECT expires_at FROM pglocker.lock_statuses WHERE lock_id = 'a'")
		want := pglocker.Tenure{
			LockID: "a", Token: crashed.Generation, Owner: crashed.Owner, End: pglocker.EventExpired, Until: ended.UTC(),
		}

		for range 2 { // then the history does
			got := *holderAt(atCrashed)
			want.Since = got.Since

			if got != want || got.Since.Before(free) || got.Since.After(atCrashed) {
				t.Errorf("%+v, want %+v", got, want)
			}

			nobodyAt(want.Until)

			if got := holderAt(atReleased); got.Token != released.Generation || got.End != pglocker.EventReleased {
				t.Errorf("%+v, want the first tenure", got)
			}

			_, err := locker.AcquireLock(ctx, "a", time.Hour)
			if err != nil && !errors.Is(err, pglocker.ErrAlreadyLocked) {
				t.Error(err)
			}
		}

		if full == (want.Owner == "") {
			t.Errorf("the owner is %q", want.Owner)
		}
	})
}

// TestHistoryMissing: without MigrateHistory locks work, and the error says what is missing. A table that was
// dropped under its triggers is named.
func TestHistoryMissing(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		ctx := t.Context()
		databaseURL := contract.NewDatabase(t)
		db := contract.Open(t, driver, databaseURL)

		if err := pglocker.MigrateHistory(ctx, db, &pglocker.Config{}); !errors.Is(err, pglocker.ErrTableNotFound) {
			t.Errorf("MigrateHistory without a table: %v, want ErrTableNotFound", err)
		}

		locker := contract.NewLocker(t, driver, databaseURL)
		missing := func(what string, err error) {
			t.Helper()

			if !errors.Is(err, pglocker.ErrHistoryNotFound) || !strings.Contains(err.Error(), "MigrateHistory") {
				t.Errorf("%s: %v, want ErrHistoryNotFound", what, err)
			}
		}
		read := func() {
			t.Helper()

			for _, lockID := range []string{"a", ""} {
				for _, err := range locker.History(ctx, lockID, time.Now()) {
					missing("History", err)
				}
			}

			_, err := locker.HolderAt(ctx, "a", time.Now())
			missing("HolderAt", err)
			_, err = locker.PruneHistory(ctx, time.Hour)
			missing("PruneHistory", err)
		}

		read()

		_, err := locker.AcquireLock(ctx, "a", time.Minute)
		contract.Must(t, err)
		contract.Must(t, pglocker.MigrateHistory(ctx, db, &pglocker.Config{}))

		if got := eventsOf(t, locker, "a", time.Time{}); len(got) != 0 {
			t.Errorf("%+v, want nothing from before the history", got)
		}

		contract.Exec(t, db, "DROP TABLE pglocker.lock_history")
		read()

		_, err = locker.AcquireLock(ctx, "b", time.Minute)
		missing("AcquireLock", err)

		_, err = locker.Lock(ctx, "c", time.Minute)
		missing("Lock", err)

		// As docs/history.md says.
		contract.Exec(t, db, "DROP FUNCTION pglocker.lock_history() CASCADE")
		_, err = locker.AcquireLock(ctx, "b", time.Minute)
		contract.Must(t, err)

		for _, id := range []string{strings.Repeat("x", pglocker.MaxLockIDBytes+1), "\x00"} {
			for _, err := range locker.History(ctx, id, time.Time{}) {
				if !errors.Is(err, pglocker.ErrInvalidLockID) {
					t.Errorf("%v, want ErrInvalidLockID", err)
				}
			}
		}

		contract.CloseLocker(t, locker)

		for _, err := range locker.History(ctx, "a", time.Time{}) {
			if !errors.Is(err, pglocker.ErrClosed) {
				t.Errorf("%v, want ErrClosed", err)
			}
		}
	})
}
