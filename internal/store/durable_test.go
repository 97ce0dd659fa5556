package store_test

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/pgtesting"
)

const (
	ttl    = time.Minute
	margin = time.Second
)

// TestCommitFails: the rows of RETURNING reach the client before the commit. One
// that fails is no grant.
func TestCommitFails(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		ctx := t.Context()
		s, db := newStore(t, driver)

		held, err := s.Acquire(ctx, "held", "me", ttl, margin)
		if err != nil {
			t.Fatal(err)
		}

		if _, err := s.Create(ctx, "free"); err != nil {
			t.Fatal(err)
		}

		contract.Exec(t, db, `CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
			$$ BEGIN RAISE EXCEPTION 'refused at commit'; END $$`)
		contract.Exec(t, db, `CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON `+table.String()+`
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()`)

		rows := column[string](t, db, "SELECT t::text FROM "+table.String()+" AS t ORDER BY lock_id")

		for what, call := range map[string]func() error{
			"Acquire of a free lock": func() error {
				_, err := s.Acquire(ctx, "free", "me", ttl, margin)

				return err
			},
			"Acquire of a new lock": func() error {
				_, err := s.Acquire(ctx, "new", "me", ttl, margin)

				return err
			},
			"Refresh": func() error {
				_, err := s.Refresh(ctx, "held", store.State{Generation: held.Row.Generation}, "me", ttl, margin)

				return err
			},
			"Create": func() error {
				_, err := s.Create(ctx, "new")

				return err
			},
			"Renew": func() error {
				_, _, err := s.Renew(ctx, []store.Renewal{{LockID: "held", Generation: held.Row.Generation, TTL: ttl}}, nil)

				return err
			},
		} {
			if err := call(); err == nil || errors.Is(err, store.ErrUnknownOutcome) {
				t.Errorf("%s whose commit fails: %v, want the server's refusal", what, err)
			}
		}

		after := column[string](t, db, "SELECT t::text FROM "+table.String()+" AS t ORDER BY lock_id")
		if len(after) != len(rows) || after[0] != rows[0] || after[1] != rows[1] {
			t.Errorf("rows were %q and are %q", rows, after)
		}
	})
}

// TestGrantsAreDurable: where the default is a weaker commit, grants and renewals
// ask for a synchronous one; where it is a stronger, that stays.
func TestGrantsAreDurable(t *testing.T) {
	t.Parallel()

	for _, columns := range []string{"six columns", "three columns"} {
		t.Run(columns, func(t *testing.T) { testGrantsAreDurable(t, columns == "six columns") })
	}
}

func testGrantsAreDurable(t *testing.T, full bool) {
	t.Parallel()

	for setting, want := range map[string]string{
		"off": "on", "local": "on", "remote_write": "on", "on": "on", "remote_apply": "remote_apply",
	} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			eachDriver(t, func(t *testing.T, driver string) {
				ctx := t.Context()
				url := newDatabase(t).String()
				admin := contract.Open(t, driver, url)

				if err := store.Migrate(ctx, admin, table, nil); err != nil {
					t.Fatal(err)
				}

				releases := "off" // for what is to be at once

				if !full {
					contract.Exec(t, admin, "ALTER TABLE "+table.String()+
						" DROP COLUMN owner, DROP COLUMN acquired_at, DROP COLUMN contended_until")
					releases = want
				}

				// A deferred trigger runs as a part of the commit.
				contract.Exec(t, admin, `CREATE TABLE commits (lock_id text, setting text)`)
				contract.Exec(t, admin, `CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
					INSERT INTO public.commits VALUES (NEW.lock_id, current_setting('synchronous_commit'));
					RETURN NULL; END $$`)
				contract.Exec(t, admin, `CREATE CONSTRAINT TRIGGER record AFTER INSERT OR UPDATE ON `+table.String()+`
					DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION record()`)
				contract.Exec(t, admin, `DO $$ BEGIN EXECUTE format(
					'ALTER DATABASE %I SET synchronous_commit = `+setting+`', current_database()); END $$`)

				db := contract.Open(t, driver, url)
				if got := contract.Query[string](t, db, "SHOW synchronous_commit"); got != setting {
					t.Fatalf("the default is %s, want %s", got, setting)
				}

				grantInEveryWay(t, store.New(db, table, nil), db)

				for _, got := range column[string](t, admin, "SELECT setting FROM commits WHERE lock_id = 'a'") {
					if got != want {
						t.Errorf("committed with synchronous_commit = %s, want %s", got, want)
					}
				}

				if n := contract.Query[int](t, admin, "SELECT count(*) FROM commits WHERE lock_id = 'a'"); n != grants {
					t.Errorf("%d commits, want %d", n, grants)
				}

				for _, got := range column[string](t, admin, "SELECT setting FROM commits WHERE lock_id = 'released'") {
					if got != releases {
						t.Errorf("released with synchronous_commit = %s, want %s", got, releases)
					}
				}

				ways := 2
				if full {
					ways = 4
				}

				if n := contract.Query[int](t, admin, "SELECT count(*) FROM commits WHERE lock_id = 'released'"); n != ways {
					t.Errorf("%d releases, want %d", n, ways)
				}

				if got := contract.Query[string](t, db, "SHOW synchronous_commit"); got != setting {
					t.Errorf("the session's setting has become %s", got)
				}
			})
		})
	}
}

// grants is how many writes grantInEveryWay makes that must be durable.
const grants = 11

func grantInEveryWay(t *testing.T, s *store.Store, db *sql.DB) {
	t.Helper()

	ctx := t.Context()

	res, err := s.Acquire(ctx, "a", "me", ttl, margin) // by INSERT
	if err != nil {
		t.Fatal(err)
	}

	contract.Exec(t, db, "UPDATE "+table.String()+" SET lock_id = 'a', expires_at = clock_timestamp()")
	contract.Exec(t, db, "DELETE FROM commits WHERE ctid = (SELECT max(ctid) FROM commits)") // of that UPDATE

	if res, err = s.Acquire(ctx, "a", "me", ttl, margin); err != nil { // by UPDATE
		t.Fatal(err)
	}

	if res, err = s.Refresh(ctx, "a", store.State{Generation: res.Row.Generation}, "me", ttl, margin); err != nil {
		t.Fatal(err)
	}

	renewed, _, err := s.Renew(ctx, []store.Renewal{{LockID: "a", Generation: res.Row.Generation, TTL: ttl}}, nil)
	if err != nil || renewed[0].State != store.Renewed {
		t.Fatal(renewed, err)
	}

	if res, err = s.HandOver(ctx, "a", res.Row.Generation, "you", ttl, margin); err != nil || res.Verdict != store.Granted {
		t.Fatal(res, err)
	}

	release := func() {
		t.Helper()

		// A minimum hold: the lease that a crash would revive may end before it.
		if res, err := s.Release(ctx, "a", store.State{Generation: res.Row.Generation}, time.Millisecond); err != nil || res.Verdict != store.Granted {
			t.Fatal(res, err)
		}

		contract.Await(t, "the hold ends", func() bool {
			seen, err := s.Get(ctx, "a")

			return err == nil && !seen.Row.Held()
		})
	}

	release()

	all, err := s.AcquireAll(ctx, []string{"a", "b"}, "us", ttl, margin, false)
	if err != nil || all.Verdict != store.Granted {
		t.Fatal(all, err)
	}

	res.Row = all.Grants[0].Row

	release()

	// Together with others.
	a := &store.Asked{ID: "a", Owner: "me", TTL: ttl}
	together := func(verb string) {
		t.Helper()

		if err := store.AskTogether(ctx, s, verb, []*store.Asked{{ID: "none", TTL: ttl, Owner: "other"}, a}); err != nil || !a.Matched {
			t.Fatal(verb, a, err)
		}

		a.Generation = a.Row.Generation
	}

	together("acquire")
	together("refresh")
	contract.Exec(t, db, "DELETE FROM "+table.String())
	together("insert")

	releaseInEveryWay(t, s)
}

// releaseInEveryWay makes releases of a lock of that name that are to be at once: alone,
// together with others and, where there are owners, by the two ways to give a grant
// back.
func releaseInEveryWay(t *testing.T, s *store.Store) {
	t.Helper()

	ctx := t.Context()

	res, err := s.Acquire(ctx, "given", "me", ttl, margin)
	if err != nil {
		t.Fatal(err)
	}

	db := s.DB()
	named := func(name string) {
		contract.Exec(t, db, "ALTER TABLE "+table.String()+" DISABLE TRIGGER USER")
		contract.Exec(t, db, "UPDATE "+table.String()+" SET lock_id = '"+name+"' WHERE lock_id IN ('given', 'released')")
		contract.Exec(t, db, "ALTER TABLE "+table.String()+" ENABLE TRIGGER USER")
	}

	again := func() {
		t.Helper()
		named("given")

		if res, err = s.Acquire(ctx, "given", "me", ttl, margin); err != nil || res.Verdict != store.Granted {
			t.Fatal(res, err)
		}

		named("released")
	}

	named("released")

	if res, err := s.Release(ctx, "released", store.State{Generation: res.Row.Generation}, 0); err != nil || res.Verdict != store.Granted {
		t.Fatal(res, err)
	}

	for _, last := range []bool{false, true} {
		if !s.Full() {
			break
		}

		again()

		if freed, err := s.GiveBack(ctx, []string{"released"}, []string{"other", "me"}, last); err != nil || len(freed) != 1 {
			t.Fatal(freed, err)
		}
	}

	again()

	a := &store.Asked{ID: "released", Generation: res.Row.Generation}
	if err := store.AskTogether(ctx, s, "release", []*store.Asked{a}); err != nil || !a.Matched {
		t.Fatal(a, err)
	}
}

// TestFailureWritesNothing: attempts that fail leave no trace in the log that
// others would have to wait for. It needs a server on which nothing else happens.
func TestFailureWritesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a server of its own")
	}

	server, err := pgtesting.StartServer(t.Context(),
		pgtesting.WithSetting("autovacuum", "off"),
		pgtesting.WithSetting("wal_level", "minimal"), // else snapshots are logged now and then
		pgtesting.WithSetting("max_wal_senders", "0"),
		pgtesting.WithSetting("checkpoint_timeout", "1h"))
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})

	ctx := t.Context()

	for _, driver := range []string{"pgx", "postgres"} {
		db := contract.Open(t, driver, server.URL())
		s := store.New(db, table, nil)

		if err := store.Migrate(ctx, db, table, nil); err != nil {
			t.Fatal(err)
		}

		held, err := s.Acquire(ctx, driver, "me", ttl, margin)
		if err != nil {
			t.Fatal(err)
		}

		free := driver + ", free"
		if _, err := s.Create(ctx, free); err != nil {
			t.Fatal(err)
		}

		old := held.Row.Generation - 1
		fail := func() {
			if res, err := s.AcquireAll(ctx, []string{driver, free}, "you", ttl, margin, false); err != nil || res.Verdict != store.Busy || res.LockID != driver {
				t.Errorf("AcquireAll: %+v, %v", res, err)
			}

			if res, err := s.Acquire(ctx, driver, "you", ttl, margin); err != nil || res.Verdict != store.Busy {
				t.Errorf("Acquire: %+v, %v", res, err)
			}

			if res, err := s.Refresh(ctx, driver, store.State{Generation: old}, "you", ttl, margin); err != nil || res.Verdict != store.WrongGeneration {
				t.Errorf("Refresh: %+v, %v", res, err)
			}

			if res, err := s.Release(ctx, driver, store.State{Generation: old}, 0); err != nil || res.Verdict != store.WrongGeneration {
				t.Errorf("Release: %+v, %v", res, err)
			}

			if res, _, err := s.Renew(ctx, []store.Renewal{{LockID: driver, Generation: old, TTL: ttl}}, nil); err != nil || res[0].State != store.RenewGone {
				t.Errorf("Renew: %+v, %v", res, err)
			}

			if freed, err := s.GiveBack(ctx, []string{driver}, []string{"other", "you"}, false); err != nil || len(freed) > 0 {
				t.Errorf("GiveBack: %v, %v", freed, err)
			}

			if _, err := s.Create(ctx, driver); err != nil {
				t.Error(err)
			}

			if err := store.Migrate(ctx, db, table, nil); err != nil {
				t.Error(err)
			}
		}

		contract.Exec(t, db, "VACUUM "+table.String())
		contract.Exec(t, db, "CHECKPOINT")
		fail() // what the first use of a page writes is no matter

		before := contract.Query[string](t, db, "SELECT pg_current_wal_insert_lsn()::text")

		for range 100 {
			fail()
		}

		written := contract.Query[int64](t, db, "SELECT (pg_current_wal_insert_lsn() - $1::text::pg_lsn)::bigint", before)
		if written != 0 {
			t.Errorf("%s: a hundred failed attempts of each kind wrote %d bytes to the log", driver, written)
		}
	}
}
