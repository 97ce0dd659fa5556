package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestHashOf: it is PostgreSQL's.
func TestHashOf(t *testing.T) {
	t.Parallel()

	_, db := newStore(t, "pgx")

	texts := slices.Clone(odd)
	for n := range 40 {
		texts = append(texts, strings.Repeat("x", n), strings.Repeat("é", n), "a"+strings.Repeat("\xf0\x9f\x94\x92", n))
	}

	hashes := column[int32](t, db, `SELECT hashtext(id) FROM unnest($1::text[]) WITH ORDINALITY AS t (id, n) ORDER BY n`, store.TextArray(texts))
	for i, text := range texts {
		if got := store.HashOf(text); got != hashes[i] {
			t.Errorf("hash of %q: %d, want %d", text, got, hashes[i])
		}
	}
}

// eachSpread runs a test on tables of six columns and of three that look spread over one shard.
func eachSpread(t *testing.T, test func(t *testing.T, s *store.Store, db *sql.DB)) {
	for _, driver := range []string{"pgx", "postgres"} {
		for _, full := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, full %t", driver, full), func(t *testing.T) {
				t.Parallel()

				s, db := newStore(t, driver)
				if !full {
					contract.Exec(t, db, "ALTER TABLE "+table.String()+" DROP owner, DROP acquired_at, DROP contended_until")
				}

				must(t, store.SpreadOver(t.Context(), s, 1))
				test(t, s, db)
			})
		}
	}
}

// TestShardTogether: requests of one shard in one statement get an answer each. A locked row delays nobody.
func TestShardTogether(t *testing.T) {
	t.Parallel()
	eachSpread(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // else it would hang where it should fail
		defer cancel()

		ask := func(verb string, asked []*store.Asked) {
			t.Helper()
			must(t, store.AskTogether(ctx, s, verb, asked))
		}

		busy := odd[len(odd)/2]
		all, others := make(map[string]bool), make(map[string]bool)

		var asked []*store.Asked

		for i, id := range odd {
			_, err := s.Create(ctx, id)
			must(t, err)

			asked = append(asked, &store.Asked{ID: id, Owner: fmt.Sprintf("me %d", i), TTL: time.Duration(i+1) * time.Minute, Generation: 1})
			all[id], others[id] = true, id != busy
		}

		_, err := s.Create(ctx, "none of them")
		must(t, err)

		stranger := lockRow(t, db, busy)

		ask("acquire", asked)
		expectMatched(t, "acquire beside a locked row", asked, others)
		must(t, stranger.Rollback())

		ask("acquire", asked)
		expectMatched(t, "acquire of what is held", asked, map[string]bool{busy: true})
		ask("refresh", asked)
		expectMatched(t, "refresh of an old generation", asked, nil)

		for _, a := range asked {
			a.Generation = 2
		}

		ask("refresh", asked)
		expectMatched(t, "refresh", asked, all)
		expectGranted(t, s, asked, 3)

		var renewals []store.Renewal
		for _, a := range asked {
			renewals = append(renewals, store.Renewal{LockID: a.ID, Generation: 3, TTL: 2 * time.Hour})
		}

		renewals = append(renewals, store.Renewal{LockID: "none of them", Generation: 1, TTL: time.Hour})
		stranger = lockRow(t, db, busy)
		renewed, _, err := s.Renew(ctx, renewals, nil)
		must(t, err)
		must(t, stranger.Rollback())

		for i, r := range renewed {
			want := store.Renewed

			switch renewals[i].LockID {
			case busy:
				want = store.RenewBusy
			case "none of them":
				want = store.RenewGone
			}

			if r.State != want || want == store.Renewed && r.Lease < 2*time.Hour-time.Minute {
				t.Errorf("renewal of %q: %+v, want %v", renewals[i].LockID, r, want)
			}
		}

		for i, a := range asked {
			a.Generation = int64(2 + i%2)
			all[a.ID] = i%2 == 1
		}

		ask("release", asked)
		expectMatched(t, "release of some", asked, all)

		// The holders of the others crash.
		contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp()")

		twice := []*store.Asked{
			{ID: odd[0], Owner: "a", TTL: time.Minute},
			{ID: odd[0], Owner: "b", TTL: time.Minute},
			{ID: odd[1], Owner: "c", TTL: time.Minute},
			{ID: odd[2], Owner: "d", TTL: time.Minute},
		}
		ofOne := func() []*store.Asked {
			return slices.DeleteFunc(slices.Clone(twice), func(a *store.Asked) bool { return a.ID != odd[0] })
		}

		ask("acquire", twice)
		expectOne(t, s, "acquire", ofOne())

		for _, a := range twice {
			if crashed := !all[a.ID]; a.Matched && s.Full() && a.Row.AfterCrash != crashed {
				t.Errorf("%q after a crash: %+v", a.ID, a.Row)
			}
		}

		if !s.Full() {
			return
		}

		ask("settle", twice)
		expectOne(t, s, "settle", ofOne())
		ask("unwanted", twice)

		for _, a := range twice {
			if seen, err := s.Get(ctx, a.ID); err != nil || seen.Row.Held() {
				t.Errorf("%q after it was returned: %+v, %v", a.ID, seen.Row, err)
			}
		}
	})
}

// TestShardOfRefusedRow: a row that is refused costs its own lock alone, among those of its shard.
func TestShardOfRefusedRow(t *testing.T) {
	t.Parallel()
	eachSpread(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		states := grantMany(t, s, 20)

		contract.Exec(t, db, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not this one'; END $$`)
		contract.Exec(t, db, "CREATE TRIGGER refuse BEFORE UPDATE ON "+table.String()+
			" FOR EACH ROW WHEN (old.lock_id = '007') EXECUTE FUNCTION refuse()")

		var renewals []store.Renewal
		for i, state := range states {
			renewals = append(renewals, store.Renewal{LockID: fmt.Sprintf("%03d", i), Generation: state.Generation, TTL: ttl})
		}

		renewed, _, err := s.Renew(t.Context(), renewals, nil)
		must(t, err)

		for i, r := range renewed {
			if (r.State == store.Renewed) != (i != 7) {
				t.Errorf("renewal %d: %+v", i, r)
			}
		}

		for i, err := range releaseMany(t.Context(), s, states) {
			if (err == nil) != (i != 7) {
				t.Errorf("release %d: %v", i, err)
			}
		}
	})
}

// TestShards: requests that come together are sent together, and all of the Store works so.
func TestShards(t *testing.T) {
	t.Parallel()

	for _, shards := range []int{1, 3} {
		s, _ := newStore(t, "pgx")
		must(t, store.SpreadOver(t.Context(), s, shards))

		var (
			mu      sync.Mutex
			largest int
		)

		s.OnBatch(func(_ bool, requests int) {
			mu.Lock()
			defer mu.Unlock()

			largest = max(largest, requests)
		})

		lives(t, s)
		releaseMany(t.Context(), s, grantMany(t, s, 256))

		if largest < 2 {
			t.Errorf("%d shards: the largest batch is of %d requests", shards, largest)
		}
	}
}

// TestShardsMislead: a server that refuses batches, since the shards are others by now, is asked for each lock alone,
// and the shards are looked up anew.
func TestShardsMislead(t *testing.T) {
	t.Parallel()

	s, _ := newStore(t, contract.LikeCitus)
	must(t, store.SpreadOver(t.Context(), s, 2))

	states := grantMany(t, s, 64)

	var renewals []store.Renewal
	for i, state := range states {
		renewals = append(renewals, store.Renewal{LockID: fmt.Sprintf("%03d", i), Generation: state.Generation, TTL: ttl})
	}

	must(t, store.SpreadOver(t.Context(), s, 2))

	renewed, _, err := s.Renew(t.Context(), renewals, nil)
	must(t, err)

	for i, r := range renewed {
		if r.State != store.Renewed {
			t.Errorf("renewal %d: %+v", i, r)
		}
	}

	for i, err := range releaseMany(t.Context(), s, states) {
		if err != nil {
			t.Errorf("release %d: %v", i, err)
		}
	}

	if n, err := s.Shards(t.Context()); n != 0 || err != nil {
		t.Errorf("it still goes by %d shards, %v", n, err)
	}
}
