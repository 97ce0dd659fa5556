package store_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestPlannedForAnEmptyTable: a connection that prepared all statements while the table was
// nearly empty, and analyzed as such, looks locks up by the index when there are thousands.
func TestPlannedForAnEmptyTable(t *testing.T) {
	t.Parallel()

	const (
		locks     = 20_000
		uses      = 12 // a statement's plan is kept from its sixth execution
		together  = 32
		perVerb   = uses * together
		leastSeen = 5 * perVerb // acquire, release, refresh, get, renew
	)

	for name, columns := range map[string]string{
		"six columns":   "",
		"three columns": "lock_id text PRIMARY KEY, generation bigint NOT NULL, expires_at timestamptz NOT NULL",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachPlanning(t, func(t *testing.T, driver string) {
				url := databases.NewDatabase(t).String()
				admin := contract.Open(t, driver, url)

				if columns == "" {
					must(t, store.Migrate(t.Context(), admin, table, nil))
				} else {
					contract.Exec(t, admin, "CREATE SCHEMA pglocker")
					contract.Exec(t, admin, "CREATE TABLE "+table.String()+" ("+columns+")")
				}

				contract.Exec(t, admin, "ALTER TABLE "+table.String()+" SET (autovacuum_enabled = off)")
				contract.Exec(t, admin, "INSERT INTO "+table.String()+" (lock_id, generation, expires_at) VALUES ('lock 1', 1, '-infinity'), ('lock 2', 1, '-infinity')")
				contract.Exec(t, admin, "ANALYZE "+table.String())

				db := contract.Open(t, driver, url)
				db.SetMaxOpenConns(1)

				s := store.New(db, table, nil)
				use := func(use, locks int) {
					usePlans(t, s, together, func(i int) string {
						return fmt.Sprintf("lock %d", 1+(use*together+i)*7%locks)
					})
				}

				for n := range uses {
					use(n, 2)
				}

				contract.Exec(t, admin, fmt.Sprintf("INSERT INTO %s (lock_id, generation, expires_at)"+
					" SELECT 'lock ' || n, 1, '-infinity' FROM generate_series(3, %d) AS n", table, locks))

				seen := func() (lookups, read int) {
					lookups = contract.Query[int](t, admin, "SELECT coalesce(sum(idx_scan + seq_scan), 0)::int FROM pg_stat_user_tables")
					read = contract.Query[int](t, admin, "SELECT coalesce(sum(seq_tup_read), 0)::int FROM pg_stat_user_tables")

					return lookups, read
				}

				for n := range uses {
					use(n, locks)
				}

				must(t, db.Close()) // the server counts what a session did at its end at the latest
				contract.Await(t, "the server has counted", func() bool {
					lookups, _ := seen()

					return lookups > 2*leastSeen
				})

				if lookups, read := seen(); read > 20*lookups {
					t.Errorf("%d rows were read in %d look-ups, not by the index", read, lookups)
				}
			})
		})
	}
}

// TestChangesByVersion: whatever the planner knows of the table, rows are changed where their versions are, without a
// look at others.
func TestChangesByVersion(t *testing.T) {
	t.Parallel()

	db := contract.Open(t, "pgx", newDatabase(t).String())
	db.SetMaxOpenConns(1)
	contract.Exec(t, db, "CREATE SCHEMA s")

	for _, full := range []bool{true, false} {
		contract.Exec(t, db, "DROP TABLE IF EXISTS s.t")
		contract.Exec(t, db, "CREATE TABLE s.t (lock_id text PRIMARY KEY, generation bigint NOT NULL, expires_at timestamptz NOT NULL)")

		if full {
			contract.Exec(t, db, "ALTER TABLE s.t ADD owner text, ADD acquired_at timestamptz, ADD contended_until timestamptz")
		}

		for _, state := range []string{
			"SELECT", // nothing is known
			"ANALYZE s.t",
			"INSERT INTO s.t (lock_id, generation, expires_at) SELECT n, 1, now() FROM generate_series(1, 20000) AS n",
			"ANALYZE s.t",
		} {
			contract.Exec(t, db, state)

			for name, arguments := range map[string]string{
				"releaseManyByID": "'{}', '{}'", "acquireManyByID": "'{}', '{}', '{}'", "tryManyByID": "'{}', '{}', '{}'",
				"grantAll": "'{}', 1, 'me'", "releaseAll": "'{}', 'me', 1",
			} {
				switch {
				case full:
				case name == "grantAll":
					arguments = "'{}', 1"
				case name == "acquireManyByID", name == "tryManyByID":
					arguments = "'{}', '{}'"
				case name == "releaseAll":
					continue
				}

				for _, text := range []string{
					"SET enable_seqscan = off", "SET jit = off", "SET plan_cache_mode = force_generic_plan",
					"PREPARE asked AS " + store.Texts(full)[name],
				} {
					contract.Exec(t, db, text)
				}

				plan := strings.Join(column[string](t, db, "EXPLAIN EXECUTE asked ("+arguments+")"), "\n")
				update, _, _ := strings.Cut(plan[strings.Index(plan, "Update on"):], "CTE Scan on got")

				if !strings.Contains(update, "Tid Scan") {
					t.Errorf("%s after %q:\n%s", name, state, plan)
				}

				contract.Exec(t, db, "DEALLOCATE asked")
			}
		}
	}
}

// eachPlanning runs a test once for each driver, and for wrappers around pgx.
func eachPlanning(t *testing.T, test func(t *testing.T, driver string)) {
	eachDriver(t, test)

	for _, driver := range []string{contract.Traced, contract.Opaque} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, driver)
		})
	}
}

// usePlans runs the statements for several locks, and those for one.
func usePlans(t *testing.T, s *store.Store, locks int, id func(i int) string) {
	t.Helper()

	ctx := t.Context()
	asked := make(map[string]*store.Asked)

	for i := range locks {
		asked[id(i)] = &store.Asked{ID: id(i), Owner: "me", TTL: time.Minute}
	}

	var (
		all      []*store.Asked
		renewals []store.Renewal
		releases []store.Releasing
	)

	for _, a := range asked {
		all = append(all, a)
	}

	together := func(verb string, matches bool) {
		t.Helper()
		must(t, store.AskTogether(ctx, s, verb, all))

		for _, a := range all {
			if a.Err != nil || a.Matched != matches {
				t.Fatalf("%s of %q: matched %v, %v", verb, a.ID, a.Matched, a.Err)
			}

			a.Generation = a.Row.Generation
		}
	}

	for _, verb := range []string{"acquire", "refresh", "get"} {
		together(verb, true)
	}

	for _, a := range all {
		renewals = append(renewals, store.Renewal{LockID: a.ID, Generation: a.Generation, TTL: time.Minute})
	}

	_, _, err := s.Renew(ctx, renewals, nil)
	must(t, err)
	must(t, store.AskTogether(ctx, s, "release", all))

	claim := func(mark store.Mark) {
		t.Helper()

		var claims []*store.Claimed
		for _, a := range all {
			claims = append(claims, &store.Claimed{ID: a.ID, Owner: a.Owner, Mark: mark})
		}

		must(t, store.ClaimTogether(ctx, s, time.Minute, claims))

		for _, c := range claims {
			if c.Err != nil || !c.Answered {
				t.Fatalf("claim of %q: answered %v, %v", c.ID, c.Answered, c.Err)
			}
		}
	}

	claim(store.Mark{For: time.Second}) // is granted the locks
	claim(store.Mark{For: time.Second}) // leaves marks

	if s.Full() {
		together("settle", true)
		together("unwanted", true)
	} else {
		together("get", true)
		together("release", true)
	}

	claim(store.Mark{}) // tries
	together("look", true)
	together("release", true)
	together("insert", false)
	together("create", false)

	res, err := s.AcquireAll(ctx, slices.Sorted(maps.Keys(asked)), "all", time.Minute, 0, false)
	must(t, err)

	for i, granted := range res.Grants {
		state := store.State{Generation: granted.Row.Generation, Owner: granted.Row.Owner}
		releases = append(releases, store.Releasing{LockID: granted.LockID, State: state})

		if row := granted.Row; i > 0 && granted.LockID <= res.Grants[i-1].LockID || s.Full() && (row.Owner != "all" || row.AcquiredAt.IsZero()) {
			t.Fatalf("AcquireAll's grant %d is %+v", i, granted)
		}
	}

	released, err := s.ReleaseAll(ctx, releases)
	must(t, err)

	if slices.ContainsFunc(released, func(r store.Released) bool { return !r.Done }) {
		t.Fatalf("ReleaseAll: %+v", released)
	}

	for _, a := range all {
		res, err := s.Acquire(ctx, a.ID, "me too", time.Minute, 0)
		must(t, err)

		res, err = s.Refresh(ctx, a.ID, store.State{Generation: res.Row.Generation}, "me too", time.Minute, 0)
		must(t, err)

		_, err = s.Release(ctx, a.ID, store.State{Generation: res.Row.Generation}, 0)
		must(t, err)

		_, err = s.Claim(ctx, a.ID, "me three", time.Minute, 0, store.Mark{For: time.Second})
		must(t, err)

		_, err = s.GiveBack(ctx, []string{a.ID}, []string{"me three"}, false)
		must(t, err)

		seen, err := s.Get(ctx, a.ID)
		must(t, err)

		_, err = s.Release(ctx, a.ID, store.State{Generation: seen.Row.Generation}, 0)
		must(t, err)
	}
}

// must fails the test at once if there is an error.
func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}
