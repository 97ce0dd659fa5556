package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestLockedRowDelaysNobody: a row that somebody has locked is passed over; the
// others of the statement are granted, and its own request waits for it alone.
func TestLockedRowDelaysNobody(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // else it would hang where it should fail
		defer cancel()

		var asked []*store.Asked
		for i := range 20 {
			id := fmt.Sprintf("lock %02d", i)
			if _, err := s.Create(ctx, id); err != nil {
				t.Fatal(err)
			}

			asked = append(asked, &store.Asked{ID: id, Owner: id, TTL: ttl, Generation: 1})
		}

		const busy = "lock 07"

		others := make(map[string]bool)
		for _, a := range asked {
			others[a.ID] = a.ID != busy
		}

		stranger := lockRow(t, db, busy)

		for _, verb := range []string{"acquire", "refresh", "release"} {
			if err := store.AskTogether(ctx, s, verb, asked); err != nil {
				t.Fatal(err)
			}

			expectMatched(t, verb, asked, others)

			for _, a := range asked {
				if others[a.ID] {
					a.Generation++
				}
			}
		}

		// The whole way. One that is alone waits for the row itself; those that come
		// meanwhile go together behind it, are passed over, and then wait as well. All the
		// while others come and go.
		type outcome struct {
			res store.Result
			err error
		}

		waiting := make(chan outcome, 4)
		ask := func(call func() (store.Result, error)) {
			go func() {
				res, err := call()
				waiting <- outcome{res, err}
			}()
		}
		acquire := func() (store.Result, error) { return s.Acquire(ctx, busy, "me", ttl, margin) }

		ask(acquire)
		awaitWaiters(t, db, 1)
		ask(acquire)
		ask(acquire)
		awaitWaiters(t, db, 3)

		var group sync.WaitGroup
		for _, a := range asked {
			if a.ID == busy {
				continue
			}

			group.Go(func() {
				for range 5 {
					res, err := s.Acquire(ctx, a.ID, "me", ttl, margin)
					if err != nil || res.Verdict != store.Granted {
						t.Errorf("%s beside a locked row: %+v, %v", a.ID, res, err)

						return
					}

					if res, err = s.Release(ctx, a.ID, store.State{Generation: res.Row.Generation}, 0); err != nil || res.Verdict != store.Granted {
						t.Errorf("release of %s beside a locked row: %+v, %v", a.ID, res, err)
					}
				}
			})
		}

		group.Wait()

		select {
		case o := <-waiting:
			t.Errorf("the locked row was answered for while it was locked: %+v, %v", o.res, o.err)
		default:
		}

		if err := stranger.Rollback(); err != nil {
			t.Fatal(err)
		}

		var granted store.Result

		for range 3 {
			switch o := <-waiting; {
			case o.err != nil:
				t.Errorf("after the row was let go: %v", o.err)
			case o.res.Verdict == store.Granted && granted.Verdict == 0:
				granted = o.res
			case o.res.Verdict != store.Busy:
				t.Errorf("after the row was let go: %+v, and %+v was granted", o.res, granted)
			}
		}

		if granted.Verdict == 0 {
			t.Fatal("nobody was granted the row that was let go")
		}

		// The same for what goes by generation: while one waits alone for a row, those
		// behind it go together, and are passed over for theirs.
		generations := map[string]int64{busy: granted.Row.Generation}

		for _, id := range []string{"lock 08", "lock 09"} {
			res, err := s.Acquire(ctx, id, "me", ttl, margin)
			if err != nil {
				t.Fatal(err)
			}

			generations[id] = res.Row.Generation
		}

		for verb, call := range map[string]func(id string, state store.State) (store.Result, error){
			"refresh": func(id string, state store.State) (store.Result, error) {
				return s.Refresh(ctx, id, state, "me", ttl, margin)
			},
			"release": func(id string, state store.State) (store.Result, error) { return s.Release(ctx, id, state, 0) },
		} {
			var strangers []*sql.Tx
			for id := range generations {
				strangers = append(strangers, lockRow(t, db, id))
			}

			n := 0
			for id, generation := range generations {
				ask(func() (store.Result, error) { return call(id, store.State{Generation: generation}) })

				if n++; n == 1 {
					awaitWaiters(t, db, 1)
				}
			}

			awaitWaiters(t, db, len(generations))

			for _, tx := range strangers {
				if err := tx.Rollback(); err != nil {
					t.Fatal(err)
				}
			}

			for id := range generations {
				if o := <-waiting; o.err != nil || o.res.Verdict != store.Granted {
					t.Errorf("%s after its row was let go: %+v, %v", verb, o.res, o.err)
				}

				generations[id]++
			}
		}
	})
}

// awaitWaiters returns when so many statements on the database wait for a lock.
func awaitWaiters(t *testing.T, db *sql.DB, n int) {
	t.Helper()
	contract.Await(t, fmt.Sprint(n, " statements wait for a lock"), func() bool {
		return contract.Query[int](t, db, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`) == n
	})
}

// TestInsertsDelayNobody: a lock that a stranger creates in a transaction that doesn't
// end holds up who asks for that lock, and nobody who asks together with them.
func TestInsertsDelayNobody(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()

		stranger, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}

		if _, err := stranger.ExecContext(ctx, "INSERT INTO "+table.String()+
			" (lock_id, generation, expires_at) VALUES ('lock 3', 1, clock_timestamp())"); err != nil {
			t.Fatal(err)
		}

		var (
			asked []*store.Asked
			free  = make(map[string]bool)
		)

		for i := range 8 {
			id := fmt.Sprint("lock ", i)
			asked = append(asked, &store.Asked{ID: id, Owner: id, TTL: ttl})
			free[id] = i != 3
		}

		if err := store.AskTogether(ctx, s, "insert", asked); err != nil {
			t.Fatal(err)
		}

		for _, a := range asked {
			if a.Matched != free[a.ID] || (a.Err == nil) != free[a.ID] || a.Unknown {
				t.Errorf("%q: matched %t, %v; want matched %t", a.ID, a.Matched, a.Err, free[a.ID])
			}
		}

		if err := stranger.Rollback(); err != nil {
			t.Fatal(err)
		}
	})
}
