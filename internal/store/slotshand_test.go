package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// handOver asks for the hand-over of a slot to a waiter of a semaphore of so many permits.
func handOver(t *testing.T, s *store.Store, slot store.LockRow, permits int, amongOthers bool) store.Result {
	t.Helper()

	res, err := s.HandOverSlot(t.Context(), slot.LockID, slot.Row.Generation, newOwner(), ttl, margin, permits, amongOthers)
	if err != nil {
		t.Fatal(err)
	}

	return res
}

// TestHandOverSlot: a slot is handed over with a larger token, unless more than the waiter's number of
// permits are held, its holder has lost it, or a writer waits.
func TestHandOverSlot(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		for _, contended := range []bool{false, true} {
			t.Run(fmt.Sprint("contended ", contended), func(t *testing.T) { testHandOverSlot(t, driver, contended) })
		}
	})
}

func testHandOverSlot(t *testing.T, driver string, amongOthers bool) {
	s, db := newStore(t, driver)
	one, two := take(t, s, permits(5, 1), "1"), take(t, s, permits(5, 1), "2")

	res := handOver(t, s, one.Grants[0], 2, amongOthers)
	if res.Verdict != store.Granted || res.Grants[0].LockID != family+"1" || res.Row.Generation <= two.Row.Generation ||
		res.Row.Owner == one.Row.Owner || res.Row.Remaining() < ttl-10*time.Second {
		t.Fatalf("%+v, want slot 1 with a token above %d", res, two.Row.Generation)
	}

	next := take(t, s, permits(5, 1), "3")
	if next.Row.Generation <= res.Row.Generation {
		t.Errorf("a grant has the token %d, after a hand-over with %d", next.Row.Generation, res.Row.Generation)
	}

	isKept := func(why string, slot store.LockRow, permits int) {
		t.Helper()

		if res := handOver(t, s, slot, permits, amongOthers); res.Verdict != store.Busy {
			t.Errorf("%s: %+v, want nothing handed over", why, res)
		}
	}

	isKept("three of two are held", res.Grants[0], 2)
	isKept("it was handed over before", one.Grants[0], 5)

	// Its lease may look over while its renewal is being committed.
	contract.Exec(t, db, "UPDATE "+table.String()+" SET expires_at = clock_timestamp() WHERE lock_id = $1", family+"3")
	isKept("one of three looks over", two.Grants[0], 2)
	isKept("its own lease is over", next.Grants[0], 5)

	// A transaction that locks the row of a slot is not waited for.
	tx := contract.LockRows(t, db, family+"2")
	isKept("its row is locked", two.Grants[0], 5)
	must(t, tx.Rollback())

	reader := take(t, s, reading(5), "1")
	if res := handOver(t, s, reader.Grants[0], 5, amongOthers); res.Verdict != store.Granted {
		t.Errorf("of a reader: %+v", res)
	} else {
		reader = res
	}

	_, err := s.Intend(t.Context(), rwFamily, newOwner(), ttl)
	must(t, err)
	isKept("a writer waits", reader.Grants[0], 5)
}

// TestHandOverAfterPromotion: the token of a hand-over is above all that a server of an older timeline can have
// issued.
func TestHandOverAfterPromotion(t *testing.T) {
	t.Parallel()

	s, db := newStore(t, "pgx")
	one := take(t, s, permits(2, 1), "1")
	onTimeline3(t, db)

	if res := handOver(t, s, one.Grants[0], 2, false); res.Verdict != store.Granted || res.Row.Generation <= 2<<40 {
		t.Errorf("%+v, want a token above %d", res, 2<<40)
	}
}

// TestHandOversGoTogether: hand-overs that gather while their gate is locked are made by one statement. Each
// has a token of its own.
func TestHandOversGoTogether(t *testing.T) {
	t.Parallel()

	s, db, statements := countingStore(t)

	const slots = 5

	var (
		held   [slots]store.LockRow
		all    sync.WaitGroup
		tokens sync.Map
	)

	for i := range held {
		held[i] = take(t, s, permits(slots, 1), string(rune('1'+i))).Grants[0]
	}

	tx := contract.LockRows(t, db, family+store.PartGate)
	before := statements.Load()

	for _, slot := range held {
		all.Go(func() {
			if res := handOver(t, s, slot, slots, false); res.Verdict != store.Granted {
				t.Errorf("%+v", res)
			} else if _, twice := tokens.LoadOrStore(res.Row.Generation, true); twice {
				t.Errorf("the token %d was granted twice", res.Row.Generation)
			}
		})
	}

	contract.Await(t, "the others wait for the gate, too", func() bool { return contract.RowWaits(t, db) == 2 })
	must(t, tx.Rollback())
	all.Wait()

	if n := statements.Load() - before; n > 3 {
		t.Errorf("%d statements for %d hand-overs", n, slots)
	}
}

// TestGrantsGoTogether: requests for one slot each that gather are granted what is free by one statement, and
// those that are left are refused by another.
func TestGrantsGoTogether(t *testing.T) {
	t.Parallel()

	s, db, statements := countingStore(t)

	const slots, requests = 4, 9

	var made []store.LockRow
	for i := range slots {
		made = append(made, take(t, s, permits(slots, 1), string(rune('1'+i))).Grants[0])
	}

	leave(t, s, made...)

	var (
		all     sync.WaitGroup
		granted atomic.Int64
		tokens  sync.Map
		tx      = contract.LockRows(t, db, family+store.PartGate)
		before  = statements.Load()
	)

	for range requests {
		all.Go(func() {
			res, err := s.AcquireSlots(t.Context(), permits(slots, 1))
			if err != nil {
				t.Error(err)
			}

			if _, twice := tokens.LoadOrStore(res.Row.Generation, true); res.Verdict == store.Granted {
				granted.Add(1)

				if twice {
					t.Errorf("the token %d was granted twice", res.Row.Generation)
				}
			}
		})
	}

	contract.Await(t, "the requests wait for the gate", func() bool { return contract.RowWaits(t, db) == 2 })
	must(t, tx.Rollback())
	all.Wait()

	if granted.Load() != slots {
		t.Errorf("%d of %d slots were granted", granted.Load(), slots)
	}

	// The first goes alone, and makes the snapshot of the others old. They ask again, and then the rest.
	if n := statements.Load() - before; n > requests {
		t.Errorf("%d statements for %d requests", n, requests)
	}
}

// TestGrantBesideHandOver: a grant that waits for the gate isn't made in vain because a hand-over came first.
func TestGrantBesideHandOver(t *testing.T) {
	t.Parallel()

	s, db, statements := countingStore(t)
	one := take(t, s, permits(2, 2), "1", "2")
	leave(t, s, one.Grants[1])

	// What a hand-over does to the gate.
	tx, err := db.BeginTx(t.Context(), nil)
	must(t, err)

	_, err = tx.Exec("UPDATE "+table.String()+" SET generation = generation + 1 WHERE lock_id = $1", family+store.PartGate)
	must(t, err)

	before := statements.Load()
	granted := make(chan store.Result, 1)

	go func() {
		res, err := s.AcquireSlots(t.Context(), permits(2, 1))
		if err != nil {
			t.Error(err)
		}

		granted <- res
	}()

	contract.Await(t, "the grant waits for the gate", func() bool { return contract.RowWaits(t, db) == 1 })
	must(t, tx.Commit())

	res := contract.Receive(t, "the grant", granted)
	if n := statements.Load() - before; res.Verdict != store.Granted || res.Row.Generation <= one.Row.Generation+1 || n != 1 {
		t.Errorf("%+v after %d statements, want a grant by one", res, n)
	}
}

// countingStore is newStore that counts the statements that the store sends. db is for others.
func countingStore(t *testing.T) (s *store.Store, db *sql.DB, statements *atomic.Int64) {
	t.Helper()

	url := newDatabase(t).String()
	db = contract.Open(t, "pgx", url)
	must(t, store.Migrate(t.Context(), db, table, nil))

	cfg, err := pgx.ParseConfig(url)
	must(t, err)

	statements = new(atomic.Int64)
	cfg.Tracer = contract.OnStatement(func(context.Context) { statements.Add(1) })

	counted := stdlib.OpenDB(*cfg)
	t.Cleanup(func() { _ = counted.Close() })

	return store.New(counted, table, nil), db, statements
}

// contended is a request while other processes have waiters at the gate.
func contended(r store.SlotsRequest) store.SlotsRequest {
	r.Contended = true

	return r
}

// TestContendedGrantsAreDurable: where others wait at the gate, the commit that unlocks it isn't waited for. But
// one after it is, before a grant or a hand-over is acknowledged. On three columns there is one, which is.
func TestContendedGrantsAreDurable(t *testing.T) {
	t.Parallel()
	eachShape(t, func(t *testing.T, s *store.Store, db *sql.DB) {
		// A deferred trigger runs as a part of the commit.
		contract.Exec(t, db, `CREATE TABLE commits (n bigserial, lock_id text, setting text)`)
		contract.Exec(t, db, `CREATE FUNCTION record() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO public.commits (lock_id, setting) VALUES (NEW.lock_id, current_setting('synchronous_commit'));
			RETURN NULL; END $$`)

		one, two := take(t, s, permits(5, 1), "1"), take(t, s, permits(5, 2), "2", "3")
		leave(t, s, append(two.Grants, one.Grants...)...)
		contract.Exec(t, db, `CREATE CONSTRAINT TRIGGER record AFTER INSERT OR UPDATE ON `+table.String()+`
			DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION record()`)

		expect := func(what string, grants []store.LockRow) {
			t.Helper()

			for _, g := range grants {
				settings := column[string](t, db, "SELECT setting FROM commits WHERE lock_id = '"+g.LockID+"' ORDER BY n")

				want := []string{"off", "on"}
				if !s.Full() {
					want = want[1:]
				}

				if !slices.Equal(settings, want) {
					t.Errorf("%s: %s was committed with synchronous_commit = %q, want %q", what, g.LockID, settings, want)
				}
			}

			contract.Exec(t, db, "TRUNCATE commits")
		}

		one = take(t, s, contended(permits(5, 1)), "1")
		expect("a grant", one.Grants)

		two = take(t, s, contended(permits(5, 2)), "2", "3")
		expect("a grant of two", two.Grants)

		if s.Full() {
			expect("a hand-over", handOver(t, s, one.Grants[0], 5, true).Grants)
		}
	})
}

// TestContendedGrantsAreTouched: such a grant is found after its commit on a table that skips updates that change
// nothing.
func TestContendedGrantsAreTouched(t *testing.T) {
	t.Parallel()

	s, db := newStore(t, "pgx")
	contract.Exec(t, db, `CREATE TRIGGER skip BEFORE UPDATE ON `+table.String()+`
		FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()`)

	one := take(t, s, contended(permits(5, 1)), "1")
	take(t, s, contended(permits(5, 2)), "2", "3")

	if res := handOver(t, s, one.Grants[0], 5, true); res.Verdict != store.Granted {
		t.Errorf("a hand-over: %+v", res)
	}
}

// TestContendedGrantIsGone: the outcome of a grant whose commit wasn't waited for is unknown if the row doesn't
// show it any more after that.
func TestContendedGrantIsGone(t *testing.T) {
	t.Parallel()

	s, db, _ := countingStore(t)
	one := take(t, s, permits(2, 1), "1")

	contract.Exec(t, db, `CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		RETURN CASE WHEN NEW.generation > OLD.generation THEN NEW END; END $$`)
	contract.Exec(t, db, `CREATE TRIGGER lose BEFORE UPDATE ON `+table.String()+` FOR EACH ROW
		WHEN (OLD.lock_id <> '`+family+store.PartGate+`') EXECUTE FUNCTION lose()`)

	r := contended(permits(2, 1))
	if res, err := s.AcquireSlots(t.Context(), r); !errors.Is(err, store.ErrUnknownOutcome) || !slices.Contains(res.Stray, r.Owner) {
		t.Errorf("a grant: %+v, %v, want that it may have been granted", res, err)
	}

	owner := newOwner()

	res, err := s.HandOverSlot(t.Context(), one.Grants[0].LockID, one.Row.Generation, owner, ttl, margin, 2, true)
	if !errors.Is(err, store.ErrUnknownOutcome) || !slices.Contains(res.Stray, owner) {
		t.Errorf("a hand-over: %+v, %v, want that it may have been granted", res, err)
	}
}

// TestOnce: a request that others come before isn't repeated, if its caller waits in line then.
func TestOnce(t *testing.T) {
	t.Parallel()

	s, db, statements := countingStore(t)
	one := take(t, s, permits(2, 2), "1", "2")
	leave(t, s, one.Grants...)

	for _, once := range []bool{true, false} {
		// What a grant does to the gate.
		tx, err := db.BeginTx(t.Context(), nil)
		must(t, err)

		_, err = tx.Exec("UPDATE "+table.String()+" SET expires_at = expires_at + interval '1 microsecond' WHERE lock_id = $1", family+store.PartGate)
		must(t, err)

		before := statements.Load()
		answer := make(chan store.Result, 1)

		go func() {
			r := permits(2, 1)
			r.Once = once

			res, err := s.AcquireSlots(t.Context(), r)
			if err != nil {
				t.Error(err)
			}

			answer <- res
		}()

		contract.Await(t, "the request waits for the gate", func() bool { return contract.RowWaits(t, db) == 1 })
		must(t, tx.Commit())

		res := contract.Receive(t, "the answer", answer)
		n := statements.Load() - before

		switch {
		case once && (res.Verdict != store.Busy || !res.Contested || n != 1):
			t.Errorf("once: %+v after %d statements, want a refusal after one", res, n)
		case !once && (res.Verdict != store.Granted || n != 2):
			t.Errorf("not once: %+v after %d statements, want a grant after two", res, n)
		}
	}
}

// TestHandOverBesideGrant: a hand-over that waits for the gate while another is granted a slot is made only if
// the waiter's number of permits allows for that one, too.
func TestHandOverBesideGrant(t *testing.T) {
	t.Parallel()

	s, db, _ := countingStore(t)
	one := take(t, s, permits(3, 3), "1", "2", "3").Grants[0]
	leave(t, s, take(t, s, permits(4, 1), "4").Grants[0])

	for _, permits := range []int{3, 4} {
		// What a grant does.
		tx, err := db.BeginTx(t.Context(), nil)
		must(t, err)

		_, err = tx.Exec("UPDATE "+table.String()+" SET expires_at = expires_at + interval '1 microsecond' WHERE lock_id = $1", family+store.PartGate)
		must(t, err)
		_, err = tx.Exec("UPDATE "+table.String()+` SET owner = 'another', generation = generation + 1, expires_at = clock_timestamp() + interval '1 hour'
			WHERE lock_id = $1`, family+"4")
		must(t, err)

		answer := make(chan store.Result, 1)

		go func() {
			res, err := s.HandOverSlot(t.Context(), one.LockID, one.Row.Generation, newOwner(), ttl, margin, permits, false)
			if err != nil {
				t.Error(err)
			}

			answer <- res
		}()

		contract.Await(t, "the hand-over waits for the gate", func() bool { return contract.RowWaits(t, db) == 1 })
		must(t, tx.Commit())

		want := store.Busy
		if permits == 4 {
			want = store.Granted
		}

		if res := contract.Receive(t, "the answer", answer); res.Verdict != want {
			t.Errorf("four are held, and the waiter goes by %d: %+v", permits, res)
		}

		contract.Exec(t, db, "UPDATE "+table.String()+" SET owner = NULL, expires_at = clock_timestamp() WHERE lock_id = $1", family+"4")
	}
}

// TestHandOverBesideMinHold: a slot that was released before its minimum hold was over is held until then.
func TestHandOverBesideMinHold(t *testing.T) {
	t.Parallel()

	s, _ := newStore(t, "pgx")
	one := take(t, s, permits(3, 1), "1").Grants[0]
	pair := take(t, s, permits(3, 2), "2", "3").Grants

	for _, slot := range pair {
		_, err := s.Release(t.Context(), slot.LockID, store.State{Generation: slot.Row.Generation}, ttl)
		must(t, err)
	}

	if res := handOver(t, s, one, 2, false); res.Verdict != store.Busy {
		t.Errorf("three of two are held: %+v, want nothing handed over", res)
	}

	if res := handOver(t, s, one, 3, false); res.Verdict != store.Granted {
		t.Errorf("three of three are held: %+v, want a hand-over", res)
	}
}

// TestGateTimeout: where the role has a lock_timeout, a statement that waits for a locked gate fails by it, and isn't
// sent again and again.
func TestGateTimeout(t *testing.T) {
	t.Parallel()

	url := newDatabase(t).String()
	db := contract.Open(t, "pgx", url)
	must(t, store.Migrate(t.Context(), db, table, nil))

	cfg, err := pgx.ParseConfig(url)
	must(t, err)

	cfg.RuntimeParams["lock_timeout"] = "50ms"

	hasty := stdlib.OpenDB(*cfg)
	t.Cleanup(func() { _ = hasty.Close() })

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	s := store.New(hasty, table, nil)
	one := take(t, s, permits(2, 1), "1").Grants[0]
	contract.LockRows(t, db, family+store.PartGate)

	isHasty := func(what string, err error) {
		t.Helper()

		if err == nil || !strings.Contains(err.Error(), "55P03") {
			t.Errorf("%s: %v, want 55P03", what, err)
		}
	}

	_, err = s.AcquireSlots(ctx, permits(2, 1))
	isHasty("a grant", err)

	_, err = s.HandOverSlot(ctx, one.LockID, one.Row.Generation, newOwner(), ttl, margin, 2, false)
	isHasty("a hand-over", err)

	// Several go together.
	var all sync.WaitGroup

	for range 8 {
		all.Go(func() {
			_, err := s.AcquireSlots(ctx, permits(2, 1))
			isHasty("one of several grants", err)
		})
	}

	all.Wait()
}

// TestHandOverLeft: a hand-over whose caller has left is found by its owner alone. Its commit may not have been waited
// for, so a crash may have lost it, and another slot may have its token.
func TestHandOverLeft(t *testing.T) {
	t.Parallel()

	_, db, _ := countingStore(t)
	s := store.New(db, table, func(id string, res store.Result, _ time.Duration) {
		t.Errorf("%s with token %d is to be released by its token", id, res.Row.Generation)
	})

	one, two := take(t, s, permits(2, 1), "1"), take(t, s, permits(2, 1), "2")
	tx := contract.LockRows(t, db, family+store.PartGate)

	var all sync.WaitGroup

	all.Go(func() { handOver(t, s, one.Grants[0], 2, true) })
	contract.Await(t, "the first waits for the gate", func() bool { return contract.RowWaits(t, db) == 1 })

	leaving, leave := context.WithCancel(t.Context())
	defer leave()

	owner := newOwner()

	all.Go(func() {
		res, err := s.HandOverSlot(leaving, two.Grants[0].LockID, two.Row.Generation, owner, ttl, margin, 2, true)
		if !errors.Is(err, store.ErrUnknownOutcome) || !slices.Contains(res.Stray, owner) {
			t.Errorf("%+v, %v, want that it may have been made", res, err)
		}
	})
	contract.Await(t, "the second waits, too", func() bool { return contract.RowWaits(t, db) == 2 })
	leave()
	must(t, tx.Rollback())
	all.Wait()
	s.Wait()
}
