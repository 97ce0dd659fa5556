package store_test

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestForeignKey: a row that refers to the lock's row, in a transaction that stays open,
// keeps nobody from renewing, releasing or taking the lock.
func TestForeignKey(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)
		ctx := t.Context()

		contract.Exec(t, db, "CREATE TABLE jobs (lock_id text REFERENCES "+table.String()+")")

		asked := func(id string, generation int64) *store.Asked {
			return &store.Asked{ID: id, Owner: "me", Generation: generation, TTL: time.Hour}
		}

		all := make([]*store.Asked, 0, 4)

		for _, id := range []string{"acquire", "refresh", "release", "renew"} {
			granted, err := s.Acquire(ctx, id, "me", time.Minute, margin)
			if err != nil || granted.Verdict != store.Granted {
				t.Fatalf("Acquire: %+v, %v", granted, err)
			}

			all = append(all, asked(id, granted.Row.Generation))
		}

		contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp() WHERE lock_id = 'acquire'")

		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}

		t.Cleanup(func() { _ = tx.Rollback() }) // it stays open until then

		if _, err := tx.ExecContext(ctx, "INSERT INTO jobs SELECT lock_id FROM "+table.String()); err != nil {
			t.Fatal(err)
		}

		for _, a := range all[:3] {
			if err := store.AskTogether(ctx, s, a.ID, []*store.Asked{a}); err != nil {
				t.Fatal(err)
			}

			if a.Err != nil || !a.Matched {
				t.Errorf("%s together with others: %v, matched %t, want it done", a.ID, a.Err, a.Matched)
			}
		}

		results, _, err := s.Renew(ctx, []store.Renewal{{LockID: "renew", Generation: all[3].Generation, TTL: time.Hour}}, nil)
		if err != nil || results[0].State != store.Renewed {
			t.Errorf("Renew: %+v, %v, want it renewed", results, err)
		}

		if res, err := s.Release(ctx, "renew", store.State{Generation: all[3].Generation}, 0); err != nil || res.Verdict != store.Granted {
			t.Errorf("Release: %+v, %v", res, err)
		}
	})
}

// TestForeignKeyToTheGeneration: where a foreign key may refer to what a grant changes, it
// keeps the lock as it is. A batch doesn't wait for it, and renewals aren't kept off.
func TestForeignKeyToTheGeneration(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)
		ctx := t.Context()

		contract.Exec(t, db, "ALTER TABLE "+table.String()+" ADD UNIQUE (lock_id, generation)")
		contract.Exec(t, db, "CREATE TABLE jobs (lock_id text, generation bigint, FOREIGN KEY (lock_id, generation) REFERENCES "+
			table.String()+" (lock_id, generation))")

		a, err := s.Acquire(ctx, "a", "me", time.Hour, margin)
		if err != nil {
			t.Fatal(err)
		}

		b, err := s.Acquire(ctx, "b", "me", time.Hour, margin)
		if err != nil {
			t.Fatal(err)
		}

		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}

		t.Cleanup(func() { _ = tx.Rollback() }) // it stays open until then

		if _, err := tx.ExecContext(ctx, "INSERT INTO jobs VALUES ('a', $1)", a.Row.Generation); err != nil {
			t.Fatal(err)
		}

		asked := []*store.Asked{{ID: "a", Generation: a.Row.Generation}, {ID: "b", Generation: b.Row.Generation}}
		if err := store.AskTogether(ctx, s, "release", asked); err != nil {
			t.Fatal(err)
		}

		if asked[0].Err != nil || asked[0].Matched || !asked[1].Matched {
			t.Errorf("released together: %+v and %+v, want the second alone", asked[0], asked[1])
		}

		results, _, err := s.Renew(ctx, []store.Renewal{{LockID: "a", Generation: a.Row.Generation, TTL: 2 * time.Hour}}, nil)
		if err != nil || results[0].State != store.Renewed {
			t.Errorf("Renew: %+v, %v, want it renewed", results, err)
		}
	})
}
