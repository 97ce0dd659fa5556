package store_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestWorkerHangs: of two servers one doesn't answer, and it is asked first. The leases of the other are told before it is
// asked again, and it isn't asked again at once. When it answers, all is as before.
func TestWorkerHangs(t *testing.T) {
	t.Parallel()

	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()

			const sqlWaiting = `SELECT count(*) FROM pg_locks JOIN pg_database AS d ON d.oid = database
				WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()`

			s, db := newStore(t, driver)
			must(t, store.SpreadOver(t.Context(), s, 2))

			var (
				renewals []store.Renewal
				hung     = make(map[int]bool)
				names    []string
			)

			for i, state := range grantMany(t, s, 32) {
				id := fmt.Sprintf("%03d", i)
				renewals = append(renewals, store.Renewal{LockID: id, Generation: state.Generation, TTL: time.Hour})

				if hung[i] = store.HashOf(id) < 0 == (store.HashOf("000") < 0); hung[i] {
					names = append(names, "'"+id+"'")
				}
			}

			contract.Exec(t, db, `CREATE FUNCTION hang() RETURNS trigger LANGUAGE plpgsql AS
				$$ BEGIN PERFORM pg_advisory_xact_lock_shared(7); RETURN new; END $$`)
			contract.Exec(t, db, "CREATE TRIGGER hang BEFORE UPDATE ON "+table.String()+
				" FOR EACH ROW WHEN (old.lock_id IN ("+strings.Join(names, ", ")+")) EXECUTE FUNCTION hang()")

			hang, err := db.BeginTx(t.Context(), nil)
			must(t, err)

			defer func() { _ = hang.Rollback() }()

			_, err = hang.ExecContext(t.Context(), "SELECT pg_advisory_xact_lock(7)")
			must(t, err)

			var calls sync.WaitGroup

			renew := func(ctx context.Context, left time.Duration, tell store.RenewedFunc) []store.RenewResult {
				due := append([]store.Renewal(nil), renewals...)
				for i := range due {
					due[i].Left = left
				}

				results, _, err := s.Renew(ctx, due, tell)
				if err != nil && ctx.Err() == nil {
					t.Error(err)
				}

				return results
			}
			expect := func(what string, results []store.RenewResult, ofHung ...store.RenewState) {
				t.Helper()

				for i, r := range results {
					want := []store.RenewState{store.Renewed}
					if hung[i] {
						want = ofHung
					}

					if !slices.Contains(want, r.State) || r.Err != nil || r.State == store.Renewed && r.Lease < time.Hour-time.Minute {
						t.Errorf("%s: renewal %d: %+v, want %v", what, i, r, want)
					}
				}
			}
			waiting := func(n int) {
				t.Helper()
				contract.Await(t, "a renewal hangs", func() bool { return contract.Query[int](t, db, sqlWaiting) == n })
			}

			// firstTold returns a function that tells whose answers are the first that a call tells of.
			firstTold := func() (store.RenewedFunc, chan []int) {
				first := make(chan []int, 2)

				return func(places []int, _ []store.RenewResult, _ time.Time) { first <- places }, first
			}
			expectOther := func(what string, first chan []int) {
				t.Helper()

				places := contract.Receive(t, "some are told of", first)
				if len(places) != len(renewals)-len(names) || hung[places[0]] {
					t.Errorf("%s: told of %v first", what, places)
				}
			}

			// The server that hangs is asked first, and the other is not asked.
			ctx, cancel := context.WithCancel(t.Context())

			calls.Go(func() {
				if results := renew(ctx, time.Hour, nil); results != nil { // all is given up
					t.Errorf("the first: %+v", results)
				}
			})
			waiting(1)

			expect("the second", renew(t.Context(), time.Hour, nil), store.RenewUnanswered)

			// In a hurry it is asked again, after the other. It passes over what the first has locked.
			tell, inHurry := firstTold()

			calls.Go(func() { expect("the third", renew(ctx, 0, tell), store.RenewUnanswered, store.RenewBusy) })
			expectOther("the third", inHurry)
			waiting(2)

			// Given up, it still owes the answer.
			cancel()
			calls.Wait()
			waiting(0)

			tell, last := firstTold()

			calls.Go(func() { expect("the fourth", renew(t.Context(), time.Hour, tell), store.Renewed) })
			waiting(1)
			expectOther("the fourth", last)

			must(t, hang.Rollback())
			calls.Wait()

			expect("the fifth", renew(t.Context(), time.Hour, nil), store.Renewed)
		})
	}
}
