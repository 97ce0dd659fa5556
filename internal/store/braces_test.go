package store_test

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestNamesWithBraces: what stands in braces in the names of the schema and the table is part of
// them, and nothing that a text is to be completed with.
func TestNamesWithBraces(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		db := contract.Open(t, driver, newDatabase(t).String())
		braces := store.Table{Schema: "{now} {six}", Name: "{row}{end}{channel}"}
		must(t, store.Migrate(t.Context(), db, braces, nil))

		s := store.New(db, braces, nil)

		res, err := s.Acquire(t.Context(), "a", "me", time.Minute, margin)
		if err != nil || res.Verdict != store.Granted {
			t.Fatalf("Acquire: %+v, %v", res, err)
		}

		asked := []*store.Asked{{ID: "a", Generation: res.Row.Generation}}
		if err := store.AskTogether(t.Context(), s, "release", asked); err != nil || !asked[0].Matched {
			t.Errorf("release: %+v, %v", asked[0], err)
		}
	})
}
