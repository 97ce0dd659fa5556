package store_test

import (
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

// shapes are tables of six columns and of three, the latter with ids of other types.
var shapes = map[string]string{
	"six columns":   "",
	"three columns": "text",
	"varchar":       "varchar(1024)",
	"collation":     `text COLLATE "und-x-icu"`,
	"domain":        "id",
	"partitions":    "text, partitioned",
}

// addTrigger makes a row trigger on the table, or on its partitions: PostgreSQL 12 allows no BEFORE
// trigger on a partitioned table.
func addTrigger(t *testing.T, db *sql.DB, name, when, does string) {
	t.Helper()

	tables := contract.Query[string](t, db, `SELECT string_agg(c.oid::regclass::text, ',') FROM pg_class AS c
		JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE n.nspname = 'pglocker' AND c.relkind = 'r'`)

	for one := range strings.SplitSeq(tables, ",") {
		contract.Exec(t, db, "CREATE TRIGGER "+name+" "+when+" ON "+one+" FOR EACH ROW "+does)
	}
}

// eachShape runs a test for each driver and shape.
func eachShape(t *testing.T, test func(t *testing.T, s *store.Store, db *sql.DB)) {
	for name, kind := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachDriver(t, func(t *testing.T, driver string) {
				if kind == "" {
					s, db := newStore(t, driver)
					test(t, s, db)

					return
				}

				db := contract.Open(t, driver, newDatabase(t).String())
				contract.Exec(t, db, "CREATE DOMAIN id AS text")
				contract.Exec(t, db, "CREATE SCHEMA pglocker")

				kind, partitioned := strings.CutSuffix(kind, ", partitioned")
				create := []string{"CREATE TABLE " + table.String() + " (lock_id " + kind +
					" PRIMARY KEY, generation bigint NOT NULL, expires_at timestamptz NOT NULL)"}

				if partitioned { // with rows at the same places of each
					create[0] += " PARTITION BY HASH (lock_id)"
					for i := range 4 {
						create = append(create, fmt.Sprintf(
							"CREATE TABLE pglocker.part_%d PARTITION OF %s FOR VALUES WITH (MODULUS 4, REMAINDER %d)", i, table, i))
					}
				}

				for _, text := range create {
					contract.Exec(t, db, text)
				}

				test(t, store.New(db, table, nil), db)
			})
		})
	}
}

// odd are ids that arrays, literals or the server's ordering could get wrong.
var odd = []string{"NULL", "null", "{}", `{"a"}`, `a,b`, ` a `, `"`, `\`, `\"`, "'", "$1", "ä", "Ä", "z", "Z", "日本", strings.Repeat("x", 1024)}

func expectMatched(t *testing.T, what string, asked []*store.Asked, want map[string]bool) {
	t.Helper()

	for _, a := range asked {
		if a.Err != nil || a.Matched != want[a.ID] {
			t.Errorf("%s of %q: matched %t, %v; want %t", what, a.ID, a.Matched, a.Err, want[a.ID])
		}
	}
}

// TestTogether: many requests in one statement, each with its own answer: granted
// where the lock is free, and nothing else; twice the same lock once.
func TestTogether(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx := t.Context()
		ask := func(verb string, asked []*store.Asked) {
			t.Helper()

			if err := store.AskTogether(ctx, s, verb, asked); err != nil {
				t.Fatal(err)
			}
		}

		var asked []*store.Asked
		for i, id := range odd {
			asked = append(asked, &store.Asked{ID: id, Owner: fmt.Sprintf("me %d", i), TTL: time.Duration(i+1) * time.Minute})
		}

		all := make(map[string]bool)

		// Nobody asks for these, and nobody may get them.
		for i := range 64 {
			if _, err := s.Acquire(ctx, fmt.Sprint("other ", i), "other", time.Hour, margin); err != nil {
				t.Fatal(err)
			}
		}

		others := func() []string {
			return column[string](t, db, "SELECT t::text FROM "+table.String()+" AS t WHERE lock_id LIKE 'other%' ORDER BY lock_id")
		}
		before := others()

		ask("acquire", asked)
		expectMatched(t, "acquire of what isn't there", asked, nil)

		for _, id := range odd {
			all[id] = true
		}

		ask("insert", asked)
		expectMatched(t, "insert", asked, all)
		expectGranted(t, s, asked, 2)

		ask("insert", asked)
		expectMatched(t, "insert of what is there", asked, nil)
		ask("acquire", asked)
		expectMatched(t, "acquire of what is held", asked, nil)

		for _, a := range asked {
			a.Generation = 2
		}

		for _, verb := range []string{"refresh", "refresh"} {
			for _, a := range asked {
				a.Owner += " " + verb
			}

			ask(verb, asked)
			expectMatched(t, verb, asked, all)
			expectGranted(t, s, asked, asked[0].Generation+1)
			ask(verb, asked)
			expectMatched(t, verb+" of an old generation", asked, nil)

			for _, a := range asked {
				a.Generation++
			}
		}

		// One of each pair.
		some := make(map[string]bool)
		for i, a := range asked {
			some[a.ID] = i%2 == 0
			if i%2 == 1 {
				a.Generation--
			}
		}

		ask("release", asked)
		expectMatched(t, "release", asked, some)

		var renewals []store.Renewal
		for _, a := range asked {
			renewals = append(renewals, store.Renewal{LockID: a.ID, Generation: a.Generation + 1, TTL: time.Hour})
		}

		renewed, _, err := s.Renew(ctx, renewals, nil)
		if err != nil {
			t.Fatal(err)
		}

		for i, r := range renewed {
			if held := !some[renewals[i].LockID]; (r.State == store.Renewed) != held {
				t.Errorf("renewal of %q: %+v, held %t", renewals[i].LockID, r, held)
			}
		}

		if after := others(); !slices.Equal(before, after) {
			t.Errorf("others were %q and are %q", before, after)
		}

		ask("get", asked)

		for _, a := range asked {
			if !a.Matched || a.Row.Held() == some[a.ID] {
				t.Errorf("%q after a release of some: %+v", a.ID, a.Row)
			}
		}

		ask("acquire", asked)
		expectMatched(t, "acquire of some", asked, some)

		// The same lock more than once: one wins.
		contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp()")

		twice := []*store.Asked{
			{ID: "z", Owner: "a", TTL: time.Minute},
			{ID: "z", Owner: "b", TTL: time.Minute},
			{ID: "a new one", Owner: "c", TTL: time.Minute},
		}
		ask("acquire", twice)
		expectOne(t, s, "acquire", twice)

		twice = []*store.Asked{
			{ID: "new", Owner: "a", TTL: time.Minute},
			{ID: "new", Owner: "b", TTL: time.Minute},
			{ID: "z", Owner: "c", TTL: time.Minute},
		}
		ask("insert", twice)
		expectOne(t, s, "insert", twice)
	})
}

// expectGranted compares what was returned with what the table shows.
func expectGranted(t *testing.T, s *store.Store, asked []*store.Asked, generation int64) {
	t.Helper()

	for _, a := range asked {
		seen, err := s.Get(t.Context(), a.ID)
		if err != nil {
			t.Fatal(err)
		}

		want := seen.Row
		want.Now, want.Began = a.Row.Now, a.Row.Began

		if a.Row != want || a.Row.Generation != generation {
			t.Errorf("%q was returned as %+v, and is %+v; want generation %d", a.ID, a.Row, seen.Row, generation)
		}

		if s.Full() && (a.Row.Owner != a.Owner || a.Row.AcquiredAt.IsZero()) {
			t.Errorf("%q: %+v, want owner %q and since when", a.ID, a.Row, a.Owner)
		}

		if left := a.Row.Remaining(); left > a.TTL || left < a.TTL-30*time.Second {
			t.Errorf("%q has %s, want nearly %s", a.ID, left, a.TTL)
		}
	}
}

// expectOne: of two requests for one lock one was granted, and the table shows it.
func expectOne(t *testing.T, s *store.Store, what string, asked []*store.Asked) {
	t.Helper()

	var winner *store.Asked

	for _, a := range asked {
		switch {
		case !a.Matched:
		case winner != nil:
			t.Errorf("%s: %+v and %+v were granted", what, winner, a)
		default:
			winner = a
		}
	}

	if winner == nil {
		t.Fatalf("%s: nobody was granted", what)
	}

	seen, err := s.Get(t.Context(), winner.ID)
	if err != nil || seen.Row.Generation != winner.Row.Generation || seen.Row.Owner != winner.Row.Owner {
		t.Errorf("%s: %+v was granted, the table shows %+v, %v", what, winner, seen.Row, err)
	}
}

// TestBadRequestFailsAlone: what the server refuses for the sake of one lock fails for
// that one; its neighbours are granted.
func TestBadRequestFailsAlone(t *testing.T) {
	t.Parallel()

	refuse := func(how string) []string {
		return []string{
			`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN ` + how + `; RETURN NEW; END $$`,
			`CREATE TRIGGER refuse BEFORE UPDATE ON ` + table.String() + `
				FOR EACH ROW WHEN (NEW.lock_id LIKE 'bad%') EXECUTE FUNCTION refuse()`,
		}
	}

	for name, setUp := range map[string][]string{
		"constraint":     {"ALTER TABLE " + table.String() + " ADD CHECK (lock_id NOT LIKE 'bad%' OR generation < 2)"},
		"trigger":        refuse("RAISE EXCEPTION 'refused'"),
		"SQLSTATE":       refuse("RAISE EXCEPTION 'refused' USING ERRCODE = 'LK001'"),
		"not privileged": refuse("RAISE EXCEPTION 'refused' USING ERRCODE = '42501'"), // as a policy has it
		"timeout": append(refuse("PERFORM pg_sleep(5)"), `DO $$ BEGIN EXECUTE format(
			'ALTER DATABASE %I SET statement_timeout = 300', current_database()); END $$`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachDriver(t, func(t *testing.T, driver string) {
				ctx := t.Context()
				url := newDatabase(t).String()
				admin := contract.Open(t, driver, url)

				if err := store.Migrate(ctx, admin, table, nil); err != nil {
					t.Fatal(err)
				}

				for _, text := range setUp {
					contract.Exec(t, admin, text)
				}

				s := store.New(contract.Open(t, driver, url), table, nil)

				var asked []*store.Asked

				good := make(map[string]bool)

				for i := range 32 {
					id := fmt.Sprintf("good %d", i)
					if i == 5 || i == 20 {
						id = fmt.Sprintf("bad %d", i)
					}

					if _, err := s.Create(ctx, id); err != nil {
						t.Fatal(err)
					}

					asked = append(asked, &store.Asked{ID: id, Owner: id, TTL: ttl})
					good[id] = i != 5 && i != 20
				}

				if err := store.AskTogether(ctx, s, "acquire", asked); err != nil {
					t.Fatal(err)
				}

				for _, a := range asked {
					if a.Matched != good[a.ID] || (a.Err == nil) != good[a.ID] || a.Unknown {
						t.Errorf("%q: matched %t, %v; want matched %t", a.ID, a.Matched, a.Err, good[a.ID])
					}
				}

				// The whole way, with whatever happens to go together.
				contract.Exec(t, admin, "UPDATE "+table.String()+
					" SET expires_at = clock_timestamp(), generation = 1 WHERE lock_id LIKE 'good%'")

				var group sync.WaitGroup
				for _, a := range asked {
					group.Go(func() {
						res, err := s.Acquire(ctx, a.ID, "me", ttl, margin)

						if good[a.ID] && (err != nil || res.Verdict != store.Granted) {
							t.Errorf("%s beside bad ones: %+v, %v", a.ID, res, err)
						}

						if !good[a.ID] && err == nil {
							t.Errorf("%s: %+v, want the server's refusal", a.ID, res)
						}
					})
				}

				group.Wait()
			})
		})
	}
}

// TestStrangeOwners: an answer shows the owner in the table, not that of the request.
func TestStrangeOwners(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)

		contract.Exec(t, db, `CREATE FUNCTION even() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN IF NEW.owner LIKE '%even' THEN NEW.owner := 'table of ' || NEW.owner; END IF; RETURN NEW; END $$`)
		contract.Exec(t, db, `CREATE TRIGGER even BEFORE INSERT OR UPDATE ON `+table.String()+` FOR EACH ROW EXECUTE FUNCTION even()`)

		for _, verb := range []string{"insert", "get"} { // by the id, and by the number
			asked := make([]*store.Asked, 20)
			for i := range asked {
				asked[i] = &store.Asked{ID: fmt.Sprintf("%02d", i), Owner: fmt.Sprint(i, []string{" even", " odd"}[i%2]), TTL: ttl}
			}

			contract.Must(t, store.AskTogether(t.Context(), s, verb, asked))

			for i, a := range asked {
				want := a.Owner
				if i%2 == 0 {
					want = "table of " + want
				}

				if !a.Matched || a.Row.Owner != want {
					t.Errorf("%s: the owner of %q is %q, want %q (error: %v)", verb, a.ID, a.Row.Owner, want, a.Err)
				}
			}
		}
	})
}

// TestStrangeIDs: where the table shows other ids than were written, nobody is told that
// a lock of another was granted to them.
func TestStrangeIDs(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		if contract.Query[string](t, db, "SELECT relkind::text FROM pg_class WHERE oid = '"+table.String()+"'::regclass") == "p" {
			t.Skip("a trigger can't move a row to another partition")
		}

		contract.Exec(t, db, `CREATE FUNCTION lower() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN NEW.lock_id := lower(btrim(NEW.lock_id::text)); RETURN NEW; END $$`)
		contract.Exec(t, db, `CREATE TRIGGER lower BEFORE INSERT ON `+table.String()+` FOR EACH ROW EXECUTE FUNCTION lower()`)

		asked := []*store.Asked{{ID: "A", Owner: "1", TTL: ttl}, {ID: "B", Owner: "2", TTL: ttl}, {ID: "c", Owner: "3", TTL: ttl}, {ID: " ", Owner: "4", TTL: ttl}}
		if err := store.AskTogether(t.Context(), s, "insert", asked); err != nil {
			t.Fatal(err)
		}

		for _, a := range asked {
			if own := a.ID == "c"; a.Matched != own || a.Unknown == own {
				t.Errorf("%q: matched %t, unknown %t, %v", a.ID, a.Matched, a.Unknown, a.Err)
			}
		}
	})
}
