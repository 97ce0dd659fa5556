package store_test

import (
	"context"
	"database/sql"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// newSkewed returns a store, and the handle it is on, for which clock_timestamp() is the
// server's clock and what set has put it ahead by.
func newSkewed(t *testing.T, driver string) (s *store.Store, db *sql.DB, set func(ahead time.Duration)) {
	t.Helper()

	db = contract.Open(t, driver, databases.NewDatabase(t).String())
	if err := store.Migrate(t.Context(), db, table, nil); err != nil {
		t.Fatal(err)
	}

	for _, text := range []string{
		"CREATE SCHEMA skewed",
		"CREATE TABLE skewed.clock AS SELECT interval '0' AS ahead",
		"ALTER FUNCTION pg_catalog.clock_timestamp() RENAME TO true_clock_timestamp",
		`CREATE FUNCTION pg_catalog.clock_timestamp() RETURNS timestamptz VOLATILE LANGUAGE plpgsql AS $$
		 BEGIN
		     RETURN pg_catalog.true_clock_timestamp() + (SELECT ahead FROM skewed.clock);
		 END $$`,
	} {
		contract.Exec(t, db, text)
	}

	return store.New(db, table, nil), db, func(ahead time.Duration) {
		contract.Exec(t, db, "UPDATE skewed.clock SET ahead = $1::bigint * interval '1 microsecond'", ahead.Microseconds())
	}
}

// TestClockSetBackInAWait: who waits for a row while the clock is set back doesn't take
// the lock from whoever was granted it meanwhile, and whose lease runs by the clock as it
// is now.
func TestClockSetBackInAWait(t *testing.T) {
	t.Parallel()

	for verb, grant := range map[string]func(context.Context, *store.Store) (store.Result, error){
		"acquire": func(ctx context.Context, s *store.Store) (store.Result, error) {
			return s.Acquire(ctx, "a", "me", ttl, margin)
		},
		"try": func(ctx context.Context, s *store.Store) (store.Result, error) {
			return s.Claim(ctx, "a", "me", ttl, margin, store.Mark{})
		},
		"claim": func(ctx context.Context, s *store.Store) (store.Result, error) {
			return s.Claim(ctx, "a", "me", ttl, margin, store.Mark{For: ttl})
		},
	} {
		t.Run(verb, func(t *testing.T) {
			t.Parallel()
			eachDriver(t, func(t *testing.T, driver string) {
				s, db, set := newSkewed(t, driver)

				if _, err := s.Create(t.Context(), "a"); err != nil {
					t.Fatal(err)
				}

				const back = time.Hour

				other, err := db.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}

				t.Cleanup(func() { _ = other.Rollback() }) // if the test failed before

				// A grant as it is made after that hour.
				if _, err := other.ExecContext(t.Context(), "UPDATE "+table.String()+` SET generation = generation + 1,
					expires_at = clock_timestamp() - interval '59 minutes', acquired_at = clock_timestamp() - interval '1 hour',
					owner = 'other' WHERE lock_id = 'a'`); err != nil {
					t.Fatal(err)
				}

				type granted struct {
					store.Result
					err error
				}

				done := make(chan granted, 1)

				go func() {
					res, err := grant(t.Context(), s)
					done <- granted{res, err}
				}()

				awaitBlocked(t, db)
				set(-back)

				if err := other.Commit(); err != nil {
					t.Fatal(err)
				}

				got := contract.Receive(t, verb+" returns", done)
				if got.err != nil || got.Verdict != store.Busy {
					t.Errorf("%s: %+v, %v, want busy", verb, got.Result, got.err)
				}

				if owner := contract.Query[string](t, db, "SELECT owner FROM "+table.String()); owner != "other" {
					t.Errorf("%s: the row is held by %q", verb, owner)
				}
			})
		})
	}
}
