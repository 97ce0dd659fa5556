package store_test

import (
	"context"
	"database/sql"
	"fmt"
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
func handOver(t *testing.T, s *store.Store, slot store.LockRow, permits int, contended bool) store.Result {
	t.Helper()

	res, err := s.HandOverSlot(t.Context(), slot.LockID, slot.Row.Generation, newOwner(), ttl, margin, permits, contended)
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

func testHandOverSlot(t *testing.T, driver string, contended bool) {
	s, db := newStore(t, driver)
	one, two := take(t, s, permits(5, 1), "1"), take(t, s, permits(5, 1), "2")

	res := handOver(t, s, one.Grants[0], 2, contended)
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

		if res := handOver(t, s, slot, permits, contended); res.Verdict != store.Busy {
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
	if res := handOver(t, s, reader.Grants[0], 5, contended); res.Verdict != store.Granted {
		t.Errorf("of a reader: %+v", res)
	} else {
		reader = res
	}

	_, err := s.Intend(t.Context(), rwFamily, newOwner(), ttl)
	must(t, err)
	isKept("a writer waits", reader.Grants[0], 5)
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
