package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestReleasesOfOneLock: of releases that go together, those of one lock are told apart by their tokens.
func TestReleasesOfOneLock(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, _ *sql.DB) {
		var asked []*store.Asked

		for i := range 40 {
			res, err := s.Acquire(t.Context(), fmt.Sprintf("lock %02d", i), "me", time.Minute, margin)
			must(t, err)

			asked = append(asked, &store.Asked{ID: fmt.Sprintf("lock %02d", i), Generation: res.Row.Generation})
		}

		held := asked[7]
		before, after := *held, *held
		before.Generation--
		after.Generation++
		asked = append([]*store.Asked{&before, &after}, asked...)

		must(t, store.AskTogether(t.Context(), s, "release", asked))

		for _, a := range asked {
			if want := a != &before && a != &after; a.Err != nil || a.Matched != want {
				t.Errorf("release of %q, token %d: matched %t, %v; want %t", a.ID, a.Generation, a.Matched, a.Err, want)
			}
		}
	})
}

// TestReleasesOfOtherTokens: of releases that go together, each ends the tenure of its own lock and token.
func TestReleasesOfOtherTokens(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, _ *sql.DB) {
		var asked []*store.Asked

		for i := range 40 {
			a := &store.Asked{ID: fmt.Sprintf("lock %02d", i)}

			res, err := s.Acquire(t.Context(), a.ID, "me", time.Minute, margin)
			must(t, err)

			if i%2 == 1 {
				res, err = s.Refresh(t.Context(), a.ID, store.State{Generation: res.Row.Generation}, "me", time.Minute, margin)
				must(t, err)
			}

			a.Generation = res.Row.Generation
			asked = append(asked, a)
		}

		// The first two have each other's token.
		asked[0].Generation, asked[1].Generation = asked[1].Generation, asked[0].Generation

		must(t, store.AskTogether(t.Context(), s, "release", asked))

		for i, a := range asked {
			if a.Err != nil || a.Matched != (i > 1) {
				t.Errorf("release of %q, token %d: matched %t, %v", a.ID, a.Generation, a.Matched, a.Err)
			}
		}
	})
}

// releasing are the releases of what was granted together.
func releasing(res store.Result) (releases []store.Releasing) {
	for _, granted := range res.Grants {
		state := store.State{Generation: granted.Row.Generation, Owner: granted.Row.Owner}
		releases = append(releases, store.Releasing{LockID: granted.LockID, State: state})
	}

	return releases
}

// TestReleaseOfOneGrant: locks that were granted together are released together, but for one that another has been
// granted since, one whose generation was raised by hand, and one whose row is locked.
func TestReleaseOfOneGrant(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)
		ids := []string{"a", "b", "c", "d", "e"}

		res, err := s.AcquireAll(t.Context(), ids, "us", time.Hour, margin, false)
		must(t, err)

		releases := releasing(res)

		_, err = s.Refresh(t.Context(), "b", releases[1].State, "another", time.Hour, margin)
		must(t, err)

		contract.Exec(t, db, "UPDATE "+table.String()+" SET generation = generation + 1 WHERE lock_id = 'e'")

		stranger := lockRow(t, db, "c")

		for _, want := range []string{"truefalsefalsetruefalse", "falsefalsetruefalsefalse"} {
			results, err := s.ReleaseAll(t.Context(), releases)
			must(t, err)

			var done string
			for _, r := range results {
				done += fmt.Sprint(r.Done)
			}

			if done != want {
				t.Errorf("released: %s, want %s", done, want)
			}

			if stranger != nil {
				must(t, stranger.Rollback())

				stranger = nil
			}
		}

		if held := column[string](t, db, "SELECT lock_id || owner FROM "+table.String()+" WHERE expires_at > now() ORDER BY lock_id"); fmt.Sprint(held) != "[banother eus]" {
			t.Errorf("held: %v", held)
		}
	})
}

// TestReleaseOfOneGrantWithoutStandby: a release of locks that were granted together waits for no standby, also if one of
// them is another's by now.
func TestReleaseOfOneGrantWithoutStandby(t *testing.T) {
	t.Parallel()

	server := contract.StartServer(t)
	db := contract.Open(t, "pgx", server.URL())
	s := store.New(db, table, nil)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	must(t, store.Migrate(ctx, db, table, nil))

	res, err := s.AcquireAll(ctx, []string{"a", "b"}, "us", time.Hour, margin, false)
	must(t, err)
	contract.Exec(t, db, "UPDATE "+table.String()+" SET generation = generation + 1 WHERE lock_id = 'b'")
	contract.Exec(t, db, "ALTER SYSTEM SET synchronous_standby_names = 'none'")
	contract.Exec(t, db, "SELECT pg_reload_conf()")
	contract.Await(t, "commits wait for a standby", func() bool {
		return contract.Query[string](t, db, "SHOW synchronous_standby_names") == "none"
	})

	results, err := s.ReleaseAll(ctx, releasing(res))
	must(t, err)

	if len(results) != 2 || !results[0].Done || results[1].Done {
		t.Errorf("released: %+v", results)
	}
}

// TestPartitionedMeanwhile: a table that has been partitioned since the first use has the locks released, and
// granted together, that were asked for, and no others.
func TestPartitionedMeanwhile(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)
		ctx := t.Context()

		var (
			ids      []string
			releases []store.Releasing
		)

		for i := range 200 {
			id := fmt.Sprintf("lock %03d", i)
			res, err := s.Acquire(ctx, id, "me", time.Hour, margin)
			must(t, err)

			if i%8 == 0 {
				ids = append(ids, id)
				releases = append(releases, store.Releasing{LockID: id, State: store.State{Generation: res.Row.Generation}})
			}
		}

		partition(t, db)

		held := func() (is map[string]bool) {
			is = make(map[string]bool)
			for _, id := range column[string](t, db, "SELECT lock_id FROM "+table.String()+" WHERE expires_at > now()") {
				is[id] = true
			}

			return is
		}

		results, err := s.ReleaseAll(ctx, releases)
		must(t, err)

		for i, r := range results {
			if held()[ids[i]] == r.Done {
				t.Errorf("%q: released %t, the table says otherwise", ids[i], r.Done)
			}

			if !r.Done {
				res, err := s.Release(ctx, ids[i], releases[i].State, 0)
				if err != nil || res.Verdict != store.Granted {
					t.Errorf("%q was passed over, and its release alone: %+v, %v", ids[i], res, err)
				}
			}
		}

		if n := len(held()); n != 200-len(ids) {
			t.Fatalf("%d locks are held, want the %d that were not released", n, 200-len(ids))
		}

		for attempt := range 2 { // the first one may only find out
			res, err := s.AcquireAll(ctx, ids, "all", time.Hour, margin, false)

			n := len(held())
			if err == nil && res.Verdict == store.Granted && n == 200 {
				return
			}

			if n != 200-len(ids) || attempt == 1 {
				t.Fatalf("attempt %d: %+v, %v, and %d locks are held", attempt, res, err, n)
			}
		}
	})
}

// partition makes the table one of four parts, with rows at the same places in each.
func partition(t *testing.T, db *sql.DB) {
	t.Helper()

	contract.Exec(t, db, "ALTER TABLE "+table.String()+" RENAME TO whole")
	contract.Exec(t, db, "CREATE TABLE "+table.String()+" (LIKE pglocker.whole INCLUDING DEFAULTS, PRIMARY KEY (lock_id)) PARTITION BY HASH (lock_id)")

	for i := range 4 {
		contract.Exec(t, db, fmt.Sprintf("CREATE TABLE pglocker.part_%d PARTITION OF %s FOR VALUES WITH (MODULUS 4, REMAINDER %d)", i, table, i))
	}

	contract.Exec(t, db, "INSERT INTO "+table.String()+" SELECT * FROM pglocker.whole")
}
