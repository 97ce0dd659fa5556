package store_test

import (
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestManyGrants: grants of a large batch are those that each request would have had in a small one, whether its requests
// are alike or not: each lock its owner, and who was granted it after a crash.
func TestManyGrants(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx := t.Context()

		ids := []string{"held", "locked", "missing"}
		for i := range 32 {
			ids = append(ids, fmt.Sprint("lock ", i))
		}

		ids = append(ids, odd...)

		for _, id := range ids {
			if id != "missing" {
				_, err := s.Create(ctx, id)
				must(t, err)
			}
		}

		states := func() []string {
			return column[string](t, db, "SELECT t::text FROM "+table.String()+" AS t WHERE lock_id = ANY ('{held, locked, other}') ORDER BY lock_id")
		}

		for _, id := range []string{"held", "other"} { // nobody asks for the other
			_, err := s.Acquire(ctx, id, "holder", time.Hour, margin)
			must(t, err)
		}

		before := states()
		stranger := lockRow(t, db, "locked")

		for round, test := range []struct {
			verb string
			ttls int
		}{{"acquire", 1}, {"try", 1}, {"acquire", 3}} {
			what := fmt.Sprintf("%s with %d TTLs", test.verb, test.ttls)

			var (
				asked   []*store.Asked
				all     = make(map[string]bool)
				crashed = make(map[string]bool)
			)

			for i, id := range ids {
				asked = append(asked, &store.Asked{ID: id, Owner: fmt.Sprint("me \\\"", i, " ", round), TTL: time.Duration(1+i%test.ttls) * time.Minute})
				all[id] = id != "held" && id != "locked" && id != "missing"

				// From the second round on, every third holder has crashed.
				crashed[id] = s.Full() && round > 0 && i%3 == 0
				if !crashed[id] && all[id] && s.Full() {
					contract.Exec(t, db, "UPDATE "+table.String()+" SET owner = NULL WHERE lock_id = "+store.QuoteLiteral(id))
				}
			}

			contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp() WHERE lock_id <> ALL ('{held, locked, other}')")

			if test.verb == "acquire" {
				must(t, store.AskTogether(ctx, s, "acquire", asked))
			} else {
				tryTogether(t, s, asked)
			}

			expectMatched(t, what, asked, all)

			for _, a := range asked {
				if !all[a.ID] {
					continue
				}

				if a.Row.AfterCrash != crashed[a.ID] {
					t.Errorf("%s of %q: after a crash is %t", what, a.ID, a.Row.AfterCrash)
				}

				a.Row.AfterCrash = false
				expectGranted(t, s, []*store.Asked{a}, int64(round+2))
			}
		}

		must(t, stranger.Rollback())

		if after := states(); fmt.Sprint(before) != fmt.Sprint(after) {
			t.Errorf("others were %q and are %q", before, after)
		}

		// Two of them are for one lock: one wins.
		contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp()")

		var asked []*store.Asked
		for i, id := range append(ids, "lock 7") {
			asked = append(asked, &store.Asked{ID: id, Owner: fmt.Sprint("me ", i), TTL: time.Minute})
		}

		must(t, store.AskTogether(ctx, s, "acquire", asked))

		var twice []*store.Asked
		for _, a := range asked {
			if a.ID == "lock 7" {
				twice = append(twice, a)
			}
		}

		expectOne(t, s, "acquire", twice)
	})
}

// tryTogether is AskTogether for claims without marks, of which each that isn't granted has the row of a refusal.
func tryTogether(t *testing.T, s *store.Store, asked []*store.Asked) {
	t.Helper()

	var claims []*store.Claimed
	for _, a := range asked {
		claims = append(claims, &store.Claimed{ID: a.ID, Owner: a.Owner})
	}

	must(t, store.ClaimTogether(t.Context(), s, asked[0].TTL, claims))

	byID := make(map[string]*store.Claimed)
	for _, c := range claims {
		byID[c.ID] = c
	}

	for _, a := range asked {
		c := byID[a.ID]
		a.Matched, a.Row, a.Err = c.Result.Verdict == store.Granted, c.Result.Row, c.Err

		if c.Answered != (c.ID != "missing") || c.ID == "held" && (!a.Row.Held() || s.Full() && a.Row.Owner != "holder") {
			t.Errorf("claim of %q: answered %t, %+v", c.ID, c.Answered, c.Result)
		}
	}
}

// TestGrantsOfPartitioned: a table that is partitioned while many ask for its locks has them granted, each once, and
// after a while together.
func TestGrantsOfPartitioned(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)
		ctx := t.Context()

		var asked []*store.Asked

		for i := range 200 {
			id := fmt.Sprintf("lock %03d", i)
			_, err := s.Create(ctx, id)
			must(t, err)

			if i%4 == 0 {
				asked = append(asked, &store.Asked{ID: id, Owner: id, TTL: time.Hour})
			}
		}

		partition(t, db)

		// A version means something in one part alone: nothing is granted in place of another.
		together := func() (granted []string) {
			must(t, store.AskTogether(ctx, s, "acquire", asked))

			for _, a := range asked {
				must(t, a.Err)

				if a.Matched {
					granted = append(granted, a.ID)
				}
			}

			shown := column[string](t, db, "SELECT lock_id FROM "+table.String()+" WHERE expires_at > now() ORDER BY lock_id")
			if !slices.Equal(granted, shown) {
				t.Fatalf("granted are %q, and the table shows %q", granted, shown)
			}

			contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp()")

			return granted
		}

		for range 100 {
			if len(together()) == len(asked) {
				return
			}

			var group sync.WaitGroup

			for i, a := range asked {
				ask := func() (store.Result, error) { return s.Acquire(ctx, a.ID, "me", time.Hour, margin) }
				if i%2 == 0 {
					ask = func() (store.Result, error) { return s.Claim(ctx, a.ID, "me", time.Hour, margin, store.Mark{}) }
				}

				group.Go(func() {
					res, err := ask()
					if err != nil || res.Verdict != store.Granted {
						t.Errorf("%q: %+v, %v", a.ID, res, err)

						return
					}

					res, err = s.Release(ctx, a.ID, store.State{Generation: res.Row.Generation}, 0)
					if err != nil || res.Verdict != store.Granted {
						t.Errorf("release of %q: %+v, %v", a.ID, res, err)
					}
				})
			}

			group.Wait()
		}

		t.Error("they are never granted together")
	})
}
