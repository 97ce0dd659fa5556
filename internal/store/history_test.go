package store_test

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestStrangersInFrontOfHistory: with everything that the texts and the function name shadowed by what raises,
// in front of pg_catalog, the history is made, written, read and pruned as ever.
func TestStrangersInFrontOfHistory(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := t.Context()
		databaseURL := databases.NewDatabase(t).String()
		direct := contract.Open(t, "pgx", databaseURL)
		shadow(t, direct)

		db := contract.Open(t, driver, inFront(t, databaseURL))

		contract.Exec(t, direct, "CREATE TABLE three ("+contract.ThreeColumns+")")
		contract.Must(t, store.Migrate(ctx, db, table, nil))

		for _, table := range []store.Table{table, {Schema: "public", Name: "three"}} {
			for range 2 {
				contract.Must(t, store.MigrateHistory(ctx, db, table, nil))
			}

			s := store.New(db, table, nil)

			granted, err := s.Acquire(ctx, "a", "me", time.Minute, margin)
			contract.Must(t, err)

			refreshed, err := s.Refresh(ctx, "a", store.State{Generation: granted.Row.Generation}, "me"+store.RefreshMark, time.Minute, margin)
			contract.Must(t, err)

			now := contract.Now(t, direct)

			_, err = s.Release(ctx, "a", store.State{Generation: refreshed.Row.Generation}, 0)
			contract.Must(t, err)
			contract.Exec(t, direct, "DELETE FROM "+table.String())

			events, err := s.ReadHistory(ctx, store.NewHistoryCursor("a", now.Add(-time.Hour)))
			contract.Must(t, err)

			var kinds []string
			for _, e := range events {
				kinds = append(kinds, e.Kind)
			}

			if len(kinds) != 4 || kinds[0] != "granted" || kinds[1] != "refreshed" || kinds[2] != "released" || kinds[3] != "deleted" {
				t.Errorf("%q", kinds)
			}

			if all, err := s.ReadHistory(ctx, store.NewHistoryCursor("", now.Add(-time.Hour))); err != nil || len(all) != 4 {
				t.Errorf("%+v, %v", all, err)
			}

			if h, err := s.HolderAt(ctx, "a", now); err != nil || h == nil || h.Token != refreshed.Row.Generation || h.End != "released" {
				t.Errorf("%+v, %v", h, err)
			}

			if n, err := s.PruneHistory(ctx, 0); err != nil || n != 4 {
				t.Errorf("%d, %v", n, err)
			}
		}

		const strange = `SELECT count(*) FROM pg_attribute AS a
			  JOIN pg_class AS c ON c.oid = a.attrelid
			  JOIN pg_type AS t ON t.oid = a.atttypid
			  LEFT JOIN pg_collation AS k ON k.oid = a.attcollation
			 WHERE c.relname IN ('lock_history', 'three_history')
			   AND (t.typnamespace <> 'pg_catalog'::regnamespace OR k.collnamespace <> 'pg_catalog'::regnamespace)`

		if n := contract.Query[int](t, direct, strange); n > 0 {
			t.Errorf("%d columns are of a stranger's type or collation", n)
		}
	})
}

// TestHistoryCallsNothingForRenewals: the function is called neither for renewals nor for marks, nor by a
// refused request.
func TestHistoryCallsNothingForRenewals(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := t.Context()
		s, db := newStore(t, driver)
		contract.Must(t, store.MigrateHistory(ctx, db, table, nil))

		granted, err := s.Acquire(ctx, "a", "me", time.Minute, margin)
		contract.Must(t, err)

		// Whatever is called from now on fails.
		contract.Exec(t, db, `CREATE OR REPLACE FUNCTION pglocker.lock_history() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN RAISE 'called'; END $$`)

		results, _, err := s.Renew(ctx, []store.Renewal{{LockID: "a", Generation: granted.Row.Generation, TTL: time.Hour}}, nil)
		if err != nil || results[0].State != store.Renewed {
			t.Errorf("Renew: %+v, %v", results, err)
		}

		claimed, err := s.Claim(ctx, "a", "other", time.Minute, margin, store.Mark{For: store.LongestMark})
		if err != nil || claimed.Verdict != store.Busy || !claimed.Marked {
			t.Errorf("Claim: %+v, %v", claimed, err)
		}

		if res, err := s.Acquire(ctx, "a", "other", time.Minute, margin); err != nil || res.Verdict != store.Busy {
			t.Errorf("Acquire: %+v, %v", res, err)
		}

		if _, err := s.Create(ctx, "b"); err != nil {
			t.Errorf("Create: %v", err)
		}

		if _, err := s.Release(ctx, "a", store.State{Generation: granted.Row.Generation}, 0); err == nil {
			t.Error("the release called nothing")
		}
	})
}

// TestHistoryOfBatches: of many requests in one statement each has its event, and those of one lock are in the
// order of its tokens.
func TestHistoryOfBatches(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := t.Context()
		s, db := newStore(t, driver)
		contract.Must(t, store.MigrateHistory(ctx, db, table, nil))

		const locks = 100

		asked := make([]*store.Asked, locks)
		for i := range asked {
			asked[i] = &store.Asked{ID: string(rune('a' + i)), Owner: "me", TTL: time.Hour}
		}

		together := func(verb string) {
			for _, a := range asked {
				a.Generation = a.Row.Generation
			}

			contract.Must(t, store.AskTogether(ctx, s, verb, asked))

			for _, a := range asked {
				if a.Err != nil || !a.Matched {
					t.Fatalf("%s: %+v", verb, a)
				}
			}
		}

		together("insert")
		together("refresh") // to the same owner
		together("release")
		together("acquire")

		for _, a := range asked {
			events, err := s.ReadHistory(ctx, store.NewHistoryCursor(a.ID, time.Time{}))
			contract.Must(t, err)

			if len(events) != 4 {
				t.Fatalf("%+v", events)
			}

			for i, kind := range []string{"granted", "refreshed", "released", "granted"} {
				if e := events[i]; e.Kind != kind || i > 0 && (e.At.Before(events[i-1].At) || e.Token < events[i-1].Token) {
					t.Errorf("event %d of %q is %+v", i, a.ID, e)
				}
			}
		}
	})
}
