package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// The floor of the timeline that the servers of these tests say they are on.
const floorOf3 = int64(3-1)<<40 + 1

// onTimeline3 has the database's functions say that this is timeline 3.
func onTimeline3(t *testing.T, db *sql.DB) {
	t.Helper()
	contract.Exec(t, db, "ALTER FUNCTION pg_catalog.pg_walfile_name(pg_lsn) RENAME TO true_walfile_name")
	answer(t, db, "pg_walfile_name(pg_lsn) RETURNS text", "RETURN '000000030000000000000001';")
	contract.Exec(t, db, "ALTER FUNCTION pg_catalog.pg_current_wal_insert_lsn() RENAME TO true_insert_lsn")
	answer(t, db, "pg_current_wal_insert_lsn() RETURNS pg_lsn", "RETURN pg_catalog.true_insert_lsn();")
}

// answer has a function of pg_catalog, which is the database's own, do something else.
func answer(t *testing.T, db *sql.DB, function, body string) {
	t.Helper()
	contract.Exec(t, db, fmt.Sprintf("CREATE OR REPLACE FUNCTION pg_catalog.%s LANGUAGE plpgsql AS $$BEGIN %s END$$", function, body))
}

// refuseCall has it raise an error.
func refuseCall(t *testing.T, db *sql.DB, function, code string) {
	t.Helper()
	answer(t, db, function, "RAISE EXCEPTION 'not here' USING ERRCODE = '"+code+"';")
}

// counts is a handler of a log that counts its lines.
type counts struct{ atomic.Int64 }

func (*counts) Enabled(context.Context, slog.Level) bool { return true }

func (c *counts) Handle(context.Context, slog.Record) error {
	c.Add(1)

	return nil
}

func (c *counts) WithAttrs([]slog.Attr) slog.Handler { return c }

func (c *counts) WithGroup(string) slog.Handler { return c }

// newTimelined returns a store on a table and a server of timeline 3, and how often it had
// something to say.
func newTimelined(t *testing.T, driver string) (*store.Store, *sql.DB, *counts) {
	t.Helper()

	_, db := newStore(t, driver)
	onTimeline3(t, db)

	said := new(counts)
	s := store.New(db, table, nil)
	s.Log(slog.New(said))

	return s, db, said
}

// TestNoTimeline: a server that isn't in recovery and refuses the functions grants without
// a floor, which is said once.
func TestNoTimeline(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		for what, change := range map[string]func(*testing.T, *sql.DB){
			"as Aurora does, 55000": func(t *testing.T, db *sql.DB) {
				refuseCall(t, db, "pg_current_wal_insert_lsn() RETURNS pg_lsn", "55000")
			},
			"0A000": func(t *testing.T, db *sql.DB) {
				refuseCall(t, db, "pg_current_wal_insert_lsn() RETURNS pg_lsn", "0A000")
			},
			"42501": func(t *testing.T, db *sql.DB) {
				refuseCall(t, db, "pg_current_wal_insert_lsn() RETURNS pg_lsn", "42501")
			},
			"XX000": func(t *testing.T, db *sql.DB) {
				refuseCall(t, db, "pg_current_wal_insert_lsn() RETURNS pg_lsn", "XX000")
			},
			"P0001": func(t *testing.T, db *sql.DB) {
				refuseCall(t, db, "pg_current_wal_insert_lsn() RETURNS pg_lsn", "P0001")
			},
			"the name alone": func(t *testing.T, db *sql.DB) { refuseCall(t, db, "pg_walfile_name(pg_lsn) RETURNS text", "55000") },
			"no such functions": func(t *testing.T, db *sql.DB) {
				contract.Exec(t, db, "DROP FUNCTION pg_catalog.pg_walfile_name(pg_lsn), pg_catalog.pg_current_wal_insert_lsn()")
			},
		} {
			s, db, said := newTimelined(t, driver)
			change(t, db)

			for range 2 {
				res, err := s.Acquire(t.Context(), "a", "me", time.Minute, margin)
				if err != nil || res.Row.Generation >= floorOf3 {
					t.Errorf("%s: Acquire: %+v, %v, want a grant without a floor", what, res, err)
				}

				if res, err = s.Release(t.Context(), "a", store.State{Generation: res.Row.Generation}, 0); err != nil || res.Verdict != store.Granted {
					t.Errorf("%s: Release: %+v, %v", what, res, err)
				}
			}

			if n := said.Load(); n != 1 {
				t.Errorf("%s: said %d times, want once", what, n)
			}
		}
	})
}

// TestTimelineRefusedForAMoment: what has nothing to do with the functions doesn't cost the
// floor.
func TestTimelineRefusedForAMoment(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		for _, code := range []string{"57014", "53200", "55P03", "25006"} {
			s, db, said := newTimelined(t, driver)
			refuseCall(t, db, "pg_walfile_name(pg_lsn) RETURNS text", code)

			if res, err := s.Acquire(t.Context(), "a", "me", time.Minute, margin); err == nil {
				t.Errorf("%s: Acquire: %+v, want an error", code, res)
			}

			answer(t, db, "pg_walfile_name(pg_lsn) RETURNS text", "RETURN '000000030000000000000001';")

			res, err := s.Acquire(t.Context(), "a", "me", time.Minute, margin)
			if err != nil || res.Row.Generation != floorOf3 {
				t.Errorf("%s: Acquire afterwards: %+v, %v, want generation %d", code, res, err, floorOf3)
			}

			if said.Load() != 0 {
				t.Errorf("%s: it was said that there is no timeline", code)
			}
		}
	})
}

// TestTimelineLost: a server that begins to refuse the functions, as a reader of Aurora does
// when it becomes the writer, is looked at anew, and no request fails.
func TestTimelineLost(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		for what, grant := range map[string]func(*testing.T, *store.Store, store.Row) (store.Result, error){
			"Acquire": func(t *testing.T, s *store.Store, _ store.Row) (store.Result, error) {
				return s.Acquire(t.Context(), "b", "me", time.Minute, margin)
			},
			"Claim": func(t *testing.T, s *store.Store, _ store.Row) (store.Result, error) {
				return s.Claim(t.Context(), "c", "me", time.Minute, margin, store.Mark{For: time.Second})
			},
			"HandOver": func(t *testing.T, s *store.Store, row store.Row) (store.Result, error) {
				return s.HandOver(t.Context(), "a", row.Generation, "other", time.Minute, margin)
			},
			"Release": func(t *testing.T, s *store.Store, row store.Row) (store.Result, error) {
				return s.Release(t.Context(), "a", store.State{Generation: row.Generation}, 0)
			},
		} {
			s, db, said := newTimelined(t, driver)

			if _, err := s.Create(t.Context(), "c"); err != nil {
				t.Fatal(err)
			}

			granted, err := s.Acquire(t.Context(), "a", "me", time.Minute, margin)
			if err != nil || granted.Row.Generation != floorOf3 {
				t.Fatalf("Acquire: %+v, %v, want generation %d", granted, err, floorOf3)
			}

			refuseCall(t, db, "pg_current_wal_insert_lsn() RETURNS pg_lsn", "55000")

			if res, err := grant(t, s, granted.Row); err != nil || res.Verdict != store.Granted {
				t.Errorf("%s: %+v, %v, want it granted", what, res, err)
			}

			if n := said.Load(); n != 1 {
				t.Errorf("%s: said %d times, want once", what, n)
			}
		}
	})
}
