package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// family is that of the tests' semaphores, and rwFamily of their read-write locks.
const (
	family   = "pglocker:semaphore:a b:c:"
	rwFamily = "pglocker:rwlock:ä'\"{}:"
)

var lastOwner struct {
	sync.Mutex
	n int
}

func newOwner() string {
	lastOwner.Lock()
	defer lastOwner.Unlock()

	lastOwner.n++

	return fmt.Sprintf("me#1.%d", lastOwner.n)
}

// permits asks for want of permits.
func permits(permits, want int) store.SlotsRequest {
	return store.SlotsRequest{Family: family, Owner: newOwner(), TTL: ttl, Margin: margin, Permits: permits, Want: want}
}

func reading(readers int) store.SlotsRequest {
	return store.SlotsRequest{Family: rwFamily, Owner: newOwner(), TTL: ttl, Margin: margin, Permits: readers, Want: 1}
}

func writing() store.SlotsRequest {
	return store.SlotsRequest{Family: rwFamily, Owner: newOwner(), TTL: ttl, Margin: margin, Permits: 1, Want: 1, Writes: true}
}

// parts are the parts of the ids of a grant.
func parts(res store.Result) (parts []string) {
	for _, g := range res.Grants {
		parts = append(parts, g.LockID[strings.LastIndexByte(g.LockID, ':')+1:])
	}

	slices.Sort(parts)

	return parts
}

// take asks for slots that must be granted.
func take(t *testing.T, s *store.Store, r store.SlotsRequest, want ...string) store.Result {
	t.Helper()

	res, err := s.AcquireSlots(t.Context(), r)
	if err != nil || res.Verdict != store.Granted || !slices.Equal(parts(res), want) {
		t.Fatalf("%+v: %+v, %v, want the parts %q", r, res, err, want)
	}

	return res
}

// refused asks for slots that must be refused, because of the given part.
func refused(t *testing.T, s *store.Store, r store.SlotsRequest, part string) store.Result {
	t.Helper()

	res, err := s.AcquireSlots(t.Context(), r)
	if err != nil || res.Verdict != store.Busy || res.LockID != r.Family+part {
		t.Fatalf("%+v: %+v, %v, want it refused because of %q", r, res, err, part)
	}

	return res
}

// leave releases what was granted, or some of it.
func leave(t *testing.T, s *store.Store, grants ...store.LockRow) {
	t.Helper()

	for _, g := range grants {
		if res, err := s.Release(t.Context(), g.LockID, store.State{Generation: g.Row.Generation}, 0); err != nil || res.Verdict != store.Granted {
			t.Fatalf("release of %s: %+v, %v", g.LockID, res, err)
		}
	}
}

// TestSlots: who may hold n is granted all it asks for or nothing, and never more than n, whatever
// n others have. Tokens grow.
func TestSlots(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, _ *sql.DB) {
		one := take(t, s, permits(3, 1), "1")
		two := take(t, s, permits(3, 2), "2", "3")
		refused(t, s, permits(3, 1), "1")
		refused(t, s, permits(5, 3), "1")
		five := take(t, s, permits(5, 2), "4", "5")
		refused(t, s, permits(5, 1), "1")

		last := int64(0)
		for _, res := range []store.Result{one, two, five} {
			for _, g := range res.Grants {
				if g.Row.Generation != res.Row.Generation || g.Row.Generation <= last || g.Row.Remaining() < ttl-10*time.Second {
					t.Errorf("granted %+v after the token %d", g, last)
				}
			}

			last = res.Row.Generation
		}

		// Five are held, then three, then two: those that may hold three get one more then.
		leave(t, s, two.Grants...)
		refused(t, s, permits(3, 1), "1")
		leave(t, s, one.Grants...)

		again := take(t, s, permits(3, 1), "1")
		if again.Row.Generation <= last {
			t.Errorf("token %d after %d", again.Row.Generation, last)
		}

		refused(t, s, permits(3, 1), "4")

		if next := take(t, s, permits(5, 1), "2"); next.Row.Generation <= again.Row.Generation {
			t.Errorf("token %d after %d", next.Row.Generation, again.Row.Generation)
		}
	})
}

// TestRWSlots: readers share, a writer doesn't; an intent keeps readers out, and ends with the
// writer's grant.
func TestRWSlots(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		first, second := take(t, s, reading(2), "1"), take(t, s, reading(2), "2")
		refused(t, s, reading(2), "1")
		refused(t, s, writing(), "1")

		mine, err := s.Intend(t.Context(), rwFamily, newOwner(), ttl)
		must(t, err)
		refused(t, s, reading(3), store.PartIntent)

		theirs, err := s.Intend(t.Context(), rwFamily, newOwner(), time.Second)
		must(t, err)

		if left := remaining(t, db, rwFamily+store.PartIntent); left < ttl/2 {
			t.Errorf("a shorter intent leaves %s of a longer one", left)
		}

		// A writer that leaves ends the last intent alone, if that is its own.
		if res, err := s.Release(t.Context(), rwFamily+store.PartIntent, store.State{Generation: mine}, 0); err != nil || res.Verdict != store.WrongGeneration {
			t.Errorf("the end of another's intent: %+v, %v", res, err)
		}

		if res, err := s.Release(t.Context(), rwFamily+store.PartIntent, store.State{Generation: theirs}, 0); err != nil || res.Verdict != store.Granted {
			t.Errorf("the end of an intent: %+v, %v", res, err)
		}

		third := take(t, s, reading(3), "3")
		_, err = s.Intend(t.Context(), rwFamily, newOwner(), ttl)
		must(t, err)
		leave(t, s, first.Grants...)
		leave(t, s, second.Grants...)
		refused(t, s, writing(), "3")
		leave(t, s, third.Grants...)

		writer := take(t, s, writing(), store.PartWriter)
		refused(t, s, writing(), store.PartWriter)
		refused(t, s, reading(9), store.PartWriter)

		if left := remaining(t, db, rwFamily+store.PartIntent); left > 0 {
			t.Errorf("the writer was granted its lock, and its intent goes on for %s", left)
		}

		// A downgrade goes past the intent of the next writer, which waits on.
		_, err = s.Intend(t.Context(), rwFamily, newOwner(), ttl)
		must(t, err)

		down := reading(9)
		down.From = writer.Row.Generation
		reader := take(t, s, down, "1")

		if reader.Row.Generation <= writer.Row.Generation {
			t.Errorf("the reader has the token %d, after the writer's %d", reader.Row.Generation, writer.Row.Generation)
		}

		refused(t, s, writing(), "1")
		refused(t, s, reading(9), store.PartIntent)

		// There is nothing to downgrade any more.
		down.Owner = newOwner()
		if res, err := s.AcquireSlots(t.Context(), down); err != nil || res.Verdict != store.WrongGeneration {
			t.Errorf("a second downgrade: %+v, %v", res, err)
		}

		leave(t, s, reader.Grants...)
		expired := take(t, s, writing(), store.PartWriter)
		contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp() WHERE lock_id = $1", rwFamily+store.PartWriter)

		down.Owner, down.From = newOwner(), expired.Row.Generation
		if res, err := s.AcquireSlots(t.Context(), down); err != nil || res.Verdict != store.WrongGeneration {
			t.Errorf("a downgrade after the lease: %+v, %v", res, err)
		}

		take(t, s, reading(2), "1")
		refused(t, s, writing(), "1")
	})
}

func remaining(t *testing.T, db *sql.DB, id string) time.Duration {
	t.Helper()

	return contract.Query[time.Time](t, db, "SELECT expires_at FROM "+table.String()+" WHERE lock_id = $1", id).Sub(contract.Now(t, db))
}

// TestRefusedSlotsCostNoWrite: neither a transaction id nor a row lock.
func TestRefusedSlotsCostNoWrite(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		take(t, s, permits(1, 1), "1")
		writer := take(t, s, writing(), store.PartWriter)

		rows := func() string {
			return contract.Query[string](t, db, "SELECT string_agg(concat_ws(' ', lock_id, xmin, xmax, ctid), ',' ORDER BY lock_id) FROM "+table.String())
		}

		before := rows()

		refused(t, s, permits(1, 1), "1")
		refused(t, s, writing(), store.PartWriter)
		refused(t, s, reading(5), store.PartWriter)

		gone := reading(5)
		gone.From = writer.Row.Generation + 1

		if res, err := s.AcquireSlots(t.Context(), gone); err != nil || res.Verdict != store.WrongGeneration {
			t.Errorf("%+v, %v", res, err)
		}

		if after := rows(); after != before {
			t.Errorf("refused requests changed\n%s to\n%s", before, after)
		}
	})
}

// TestSlotsThatLookFree: a lease that is over counts as held while a transaction has its row: a
// renewal that is being committed, or a guard.
func TestSlotsThatLookFree(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		held := take(t, s, permits(2, 2), "1", "2")
		reader := take(t, s, reading(2), "1")

		// The first one's permit was released. The other's lease, and the reader's, is over.
		leave(t, s, held.Grants[0])
		contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp() WHERE lock_id = ANY ($1)",
			store.TextArray([]string{held.Grants[1].LockID, reader.Grants[0].LockID}))

		guards := make([]*sql.Tx, 2)
		for i, id := range []string{held.Grants[1].LockID, reader.Grants[0].LockID} {
			tx, err := db.BeginTx(t.Context(), nil)
			must(t, err)

			guards[i] = tx

			var one int
			must(t, tx.QueryRowContext(t.Context(), "SELECT 1 FROM "+table.String()+" WHERE lock_id = $1 FOR SHARE", id).Scan(&one))
		}

		for _, r := range []store.SlotsRequest{permits(1, 1), permits(2, 2), writing()} {
			if res, err := s.AcquireSlots(t.Context(), r); err != nil || res.Verdict != store.Busy || res.LockID != r.Gate() {
				t.Errorf("beside a guard: %+v gets %+v, %v", r, res, err)
			}
		}

		free := "1"
		if held.Grants[0].LockID == family+"2" {
			free = "2"
		}

		// One of two is free for sure.
		leave(t, s, take(t, s, permits(2, 1), free).Grants...)
		must(t, guards[0].Commit())
		must(t, guards[1].Commit())
		take(t, s, permits(2, 2), "1", "2")
		take(t, s, writing(), store.PartWriter)
	})
}

// TestStrayGrantOfSlots: what was granted under a name is found by it and returned.
func TestStrayGrantOfSlots(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, _ := newStore(t, driver)

		r := permits(3, 2)
		take(t, s, r, "1", "2")
		take(t, s, permits(3, 1), "3")

		if freed, err := s.GiveBack(t.Context(), []string{family + store.PartGate}, []string{"nobody", "NULL"}, true); err != nil || len(freed) > 0 {
			t.Errorf("nobody's: %q, %v", freed, err)
		}

		refused(t, s, permits(3, 1), "1")

		if freed, err := s.GiveBack(t.Context(), []string{family + store.PartGate}, []string{"nobody", r.Owner}, false); err != nil || len(freed) != 1 {
			t.Errorf("a stray grant: %q, %v", freed, err)
		}

		take(t, s, permits(3, 2), "1", "2")
	})
}

// auditor has the table write down what becomes of slots.
func auditor(t *testing.T, db *sql.DB) {
	t.Helper()

	contract.Exec(t, db, `CREATE TABLE changes (n bigint GENERATED ALWAYS AS IDENTITY, at timestamptz DEFAULT clock_timestamp(),
		tx text DEFAULT pg_current_xact_id(), lock_id text, generation bigint, expires_at timestamptz)`)
	contract.Exec(t, db, `CREATE FUNCTION write_down() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		INSERT INTO public.changes (lock_id, generation, expires_at) VALUES (NEW.lock_id, NEW.generation, NEW.expires_at);
		RETURN NULL; END $$`)
	contract.Exec(t, db, "CREATE TRIGGER audit AFTER UPDATE ON "+table.String()+" FOR EACH ROW EXECUTE FUNCTION write_down()")
}

// change is one that the auditor wrote down.
type change struct {
	at, expiresAt time.Time
	tx, lockID    string
	generation    int64
}

func changes(t *testing.T, db *sql.DB) (all []change) {
	t.Helper()

	rows, err := db.QueryContext(t.Context(), "SELECT at, tx, lock_id, generation, expires_at FROM changes ORDER BY n")
	must(t, err)

	defer func() { _ = rows.Close() }()

	for rows.Next() {
		var c change

		must(t, rows.Scan(&c.at, &c.tx, &c.lockID, &c.generation, &c.expiresAt))

		all = append(all, c)
	}

	must(t, rows.Err())

	return all
}

// TestNeverMoreSlots: many sessions with limits of 5 and 3 take several slots at once, release them,
// renew them or let their leases end. The auditor finds no grant to one with n beside which more
// than n were held, and none that was given in part.
func TestNeverMoreSlots(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		const (
			sessions = 8
			rounds   = 40
			short    = 40 * time.Millisecond
		)

		auditor(t, db)

		type asked struct{ permits, want int }

		var (
			mu     sync.Mutex
			grants = make(map[int64]asked) // by token
			all    sync.WaitGroup
		)

		for i := range sessions {
			all.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), 1))
				ctx := context.WithoutCancel(t.Context())

				for range rounds {
					r := permits(3+2*(i%2), 1+random.IntN(3))
					r.Margin = 0

					ends := random.IntN(4) == 0
					if ends {
						r.TTL = short
					}

					res, err := s.AcquireSlots(ctx, r)
					if err != nil {
						t.Error(err)

						return
					}

					if res.Verdict != store.Granted {
						continue
					}

					mu.Lock()
					if before, twice := grants[res.Row.Generation]; twice {
						t.Errorf("the token %d was granted twice, to %+v before", res.Row.Generation, before)
					}

					grants[res.Row.Generation] = asked{r.Permits, r.Want}
					mu.Unlock()

					for _, g := range res.Grants {
						if ends {
							// Renewed as late as can be, or not at all.
							time.Sleep(time.Duration(random.Int64N(int64(short / 2))))

							if _, _, err := s.Renew(ctx, []store.Renewal{{LockID: g.LockID, Generation: g.Row.Generation, TTL: short}}, nil); err != nil {
								t.Error(err)
							}
						} else if _, err := s.Release(ctx, g.LockID, store.State{Generation: g.Row.Generation}, 0); err != nil {
							t.Error(err)
						}
					}
				}
			})
		}

		all.Wait()

		if t.Failed() {
			return
		}

		var (
			held = make(map[string]change)
			log  = changes(t, db)
			sure = 0
			last = int64(0)
		)

		for i, gate := range log {
			if gate.lockID != family+store.PartGate {
				continue
			}

			// What was written down before, in other transactions: a release is, before it is committed.
			for id := range held {
				delete(held, id)
			}

			var granted []change

			for k, c := range log {
				switch {
				case c.lockID == gate.lockID:
				case c.tx == gate.tx:
					granted = append(granted, c)
				case k < i:
					held[c.lockID] = c
				}
			}

			beside := 0

			for _, c := range held {
				if c.expiresAt.After(gate.at) {
					beside++
				}
			}

			// Requests for one slot each go together. The last has the gate's generation.
			byToken := make(map[int64]int)
			for _, c := range granted {
				byToken[c.generation]++
			}

			for token, slots := range byToken {
				a := grants[token]
				if beside+len(granted) > a.permits || slots != a.want || token <= last || token > gate.generation {
					t.Errorf("%d slots, of %d, were granted to %+v beside %d, token %d after %d, up to %d",
						slots, len(granted), a, beside, token, last, gate.generation)
				}
			}

			last = gate.generation
			sure += len(byToken)
		}

		if sure != len(grants) || sure < sessions {
			t.Errorf("the auditor saw %d grants of %d", sure, len(grants))
		}
	})
}

// TestSlotsByIndex: a connection that prepared the statements while the table was nearly empty looks
// slots up by the index when there are thousands of rows.
func TestSlotsByIndex(t *testing.T) {
	t.Parallel()
	eachPlanning(t, func(t *testing.T, driver string) {
		const uses, rows = 12, 20_000

		url := databases.NewDatabase(t).String()
		admin := contract.Open(t, driver, url)
		must(t, store.Migrate(t.Context(), admin, table, nil))
		contract.Exec(t, admin, "ALTER TABLE "+table.String()+" SET (autovacuum_enabled = off)")

		db := contract.Open(t, driver, url)
		db.SetMaxOpenConns(1)

		s := store.New(db, table, nil)
		use := func() {
			for range uses {
				r := permits(3, 2)
				res := take(t, s, r, "1", "2")
				refused(t, s, permits(3, 2), "1")
				_, err := s.MarkGate(t.Context(), r.Gate(), store.Mark{For: time.Second})
				must(t, err)
				leave(t, s, res.Grants[0])

				_, err = s.GiveBack(t.Context(), []string{r.Gate()}, []string{r.Owner}, true)
				must(t, err)

				writer := take(t, s, writing(), store.PartWriter)
				down := reading(3)
				down.From = writer.Row.Generation
				leave(t, s, take(t, s, down, "1").Grants...)

				intent, err := s.Intend(t.Context(), rwFamily, newOwner(), time.Second)
				must(t, err)

				_, err = s.Release(t.Context(), rwFamily+store.PartIntent, store.State{Generation: intent}, 0)
				must(t, err)
			}
		}

		use()
		contract.Exec(t, admin, "ANALYZE "+table.String())
		use()
		contract.Exec(t, admin, fmt.Sprintf("INSERT INTO %s (lock_id, generation, expires_at)"+
			" SELECT 'lock ' || n, 1, '-infinity' FROM generate_series(3, %d) AS n", table, rows))
		use()
		must(t, db.Close()) // the server counts what a session did at its end at the latest

		var lookups, read int

		contract.Await(t, "the server has counted", func() bool {
			must(t, admin.QueryRowContext(t.Context(), "SELECT coalesce(sum(idx_scan + seq_scan), 0), coalesce(sum(seq_tup_read), 0) FROM pg_stat_user_tables").
				Scan(&lookups, &read))

			return lookups > 3*uses*20
		})

		if read > 20*lookups {
			t.Errorf("%d rows were read in %d look-ups, not by the index", read, lookups)
		}
	})
}
