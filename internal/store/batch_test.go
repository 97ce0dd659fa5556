package store_test

import (
	"context"
	"database/sql"
	"fmt"
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

				db := contract.Open(t, driver, databases.NewDatabase(t).String())
				contract.Exec(t, db, "CREATE DOMAIN id AS text")
				contract.Exec(t, db, "CREATE SCHEMA pglocker")
				contract.Exec(t, db, "CREATE TABLE "+table.String()+" (lock_id "+kind+
					" PRIMARY KEY, generation bigint NOT NULL, expires_at timestamptz NOT NULL)")
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
		want.Now = a.Row.Now

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

// TestLockedRowDelaysNobody: a row that somebody has locked is passed over; the
// others of the statement are granted, and its own request waits for it alone.
func TestLockedRowDelaysNobody(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second) // else it would hang where it should fail
		defer cancel()

		var asked []*store.Asked
		for i := range 20 {
			id := fmt.Sprintf("lock %02d", i)
			if _, err := s.Create(ctx, id); err != nil {
				t.Fatal(err)
			}

			asked = append(asked, &store.Asked{ID: id, Owner: id, TTL: ttl, Generation: 1})
		}

		const busy = "lock 07"

		others := make(map[string]bool)
		for _, a := range asked {
			others[a.ID] = a.ID != busy
		}

		stranger := lockRow(t, db, busy)

		for _, verb := range []string{"acquire", "refresh", "release"} {
			if err := store.AskTogether(ctx, s, verb, asked); err != nil {
				t.Fatal(err)
			}

			expectMatched(t, verb, asked, others)

			for _, a := range asked {
				if others[a.ID] {
					a.Generation++
				}
			}
		}

		// The whole way: while it waits, others come and go.
		type outcome struct {
			res store.Result
			err error
		}

		waiting := make(chan outcome, 1)

		go func() {
			res, err := s.Acquire(ctx, busy, "me", ttl, margin)
			waiting <- outcome{res, err}
		}()

		awaitBlocked(t, db)

		var group sync.WaitGroup
		for _, a := range asked {
			if a.ID == busy {
				continue
			}

			group.Go(func() {
				for range 5 {
					res, err := s.Acquire(ctx, a.ID, "me", ttl, margin)
					if err != nil || res.Verdict != store.Granted {
						t.Errorf("%s beside a locked row: %+v, %v", a.ID, res, err)

						return
					}

					if res, err = s.Release(ctx, a.ID, store.State{Generation: res.Row.Generation}, 0); err != nil || res.Verdict != store.Granted {
						t.Errorf("release of %s beside a locked row: %+v, %v", a.ID, res, err)
					}
				}
			})
		}

		group.Wait()

		select {
		case o := <-waiting:
			t.Errorf("the locked row was answered for while it was locked: %+v, %v", o.res, o.err)
		default:
		}

		if err := stranger.Rollback(); err != nil {
			t.Fatal(err)
		}

		if o := <-waiting; o.err != nil || o.res.Verdict != store.Granted {
			t.Errorf("after the row was let go: %+v, %v", o.res, o.err)
		}
	})
}

// TestBadRequestFailsAlone: what the server refuses for the sake of one lock fails for
// that one; its neighbours are granted.
func TestBadRequestFailsAlone(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := t.Context()
		s, db := newStore(t, driver)

		contract.Exec(t, db, "ALTER TABLE "+table.String()+" ADD CHECK (lock_id NOT LIKE 'bad%' OR generation < 2)")
		contract.Exec(t, db, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN RAISE EXCEPTION 'refused'; END $$`)
		contract.Exec(t, db, `CREATE TRIGGER refuse BEFORE UPDATE ON `+table.String()+`
			FOR EACH ROW WHEN (NEW.lock_id = 'bad 5') EXECUTE FUNCTION refuse()`)

		var asked []*store.Asked

		want := make(map[string]bool)

		for i := range 32 {
			id := fmt.Sprintf("good %d", i)
			if i%5 == 0 {
				id = fmt.Sprintf("bad %d", i)
			}

			if _, err := s.Create(ctx, id); err != nil {
				t.Fatal(err)
			}

			asked = append(asked, &store.Asked{ID: id, Owner: id, TTL: ttl})
			want[id] = i%5 != 0
		}

		if err := store.AskTogether(ctx, s, "acquire", asked); err != nil {
			t.Fatal(err)
		}

		for _, a := range asked {
			if a.Matched != want[a.ID] || (a.Err == nil) != want[a.ID] || a.Unknown {
				t.Errorf("%q: matched %t, %v; want matched %t", a.ID, a.Matched, a.Err, want[a.ID])
			}
		}

		// The whole way, with whatever happens to go together.
		contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp(), generation = 1 WHERE lock_id LIKE 'good%'")

		var group sync.WaitGroup
		for _, a := range asked {
			group.Go(func() {
				res, err := s.Acquire(ctx, a.ID, "me", ttl, margin)

				if want[a.ID] && (err != nil || res.Verdict != store.Granted) {
					t.Errorf("%s beside bad ones: %+v, %v", a.ID, res, err)
				}

				if !want[a.ID] && err == nil {
					t.Errorf("%s: %+v, want the server's refusal", a.ID, res)
				}
			})
		}

		group.Wait()
	})
}

// TestLostReplyOfMany: when the connection breaks under a statement for many, nobody
// knows what became of it. Each request is settled by itself: who is told that it was
// granted has the lock, and the others are told that it isn't known.
func TestLostReplyOfMany(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		ctx := t.Context()

		// The commit waits for what the test holds.
		contract.Exec(t, db, `CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$`)

		const locks = 16
		for i := range locks {
			if _, err := s.Create(ctx, fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}

		contract.Exec(t, db, `CREATE CONSTRAINT TRIGGER wait AFTER UPDATE ON `+table.String()+`
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()`)

		barrier, err := db.Conn(ctx)
		if err != nil {
			t.Fatal(err)
		}

		defer func() { _ = barrier.Close() }() // it is this test's alone

		if _, err := barrier.ExecContext(ctx, "SELECT pg_advisory_lock(42)"); err != nil {
			t.Fatal(err)
		}

		type outcome struct {
			id, owner string
			res       store.Result
			err       error
		}

		outcomes := make(chan outcome, locks)

		for i := range locks {
			go func() {
				o := outcome{id: fmt.Sprint(i), owner: fmt.Sprint("me ", i)}
				o.res, o.err = s.Acquire(ctx, o.id, o.owner, ttl, margin)
				outcomes <- o
			}()
		}

		// One alone and then some together.
		blocked := `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'`

		contract.Await(t, "two statements wait at their commit", func() bool { return contract.Query[int](t, db, blocked) >= 2 })

		if _, err := barrier.ExecContext(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event = 'advisory'`); err != nil {
			t.Fatal(err)
		}

		if _, err := barrier.ExecContext(ctx, "SELECT pg_advisory_unlock(42)"); err != nil {
			t.Fatal(err)
		}

		granted := 0

		for range locks {
			o := <-outcomes

			seen, err := s.Get(context.WithoutCancel(ctx), o.id)
			if err != nil {
				t.Fatal(err)
			}

			switch {
			case o.err == nil && o.res.Verdict == store.Granted:
				granted++

				if !seen.Row.Held() || seen.Row.Generation != o.res.Row.Generation || s.Full() && seen.Row.Owner != o.owner {
					t.Errorf("%s: granted %+v, the table shows %+v", o.id, o.res.Row, seen.Row)
				}
			case o.err == nil:
				t.Errorf("%s: %+v, but nobody else asked for it", o.id, o.res)
			}
		}

		if s.Full() && granted != locks {
			t.Errorf("%d of %d were granted in the end, where each can be settled", granted, locks)
		}

		t.Logf("%d of %d granted", granted, locks)
	})
}
