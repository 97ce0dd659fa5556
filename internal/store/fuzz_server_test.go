package store_test

import (
	"database/sql"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// FuzzTextsOnTheServer: the server reads each text as it was: as an element of an array,
// as an inlined literal with either setting of standard_conforming_strings, and, if it
// can be one, as an identifier.
func FuzzTextsOnTheServer(f *testing.F) {
	for _, seed := range append(contract.OddLockIDs(), "", "\t", "(a,b)", `\'`, `E'\x41'`) {
		f.Add(seed)
	}

	db := contract.Open(f, "pgx", newDatabase(f).String())

	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			t.Skip("is never sent")
		}

		if got := unnest[string](t, db, "text", store.TextArray([]string{"a", text})); len(got) != 2 || got[1] != text {
			t.Errorf("%q comes back from an array as %q", text, got)
		}

		for _, setting := range []string{"on", "off"} {
			if got := literalOnTheServer(t, db, setting, text); got != text {
				t.Errorf("%q comes back as %q, standard_conforming_strings %s", text, got, setting)
			}
		}

		table := store.Table{Schema: "s", Name: text}
		if table.Validate() != nil {
			return
		}

		_, name, _ := strings.Cut(table.String(), ".")

		rows, err := db.QueryContext(t.Context(), "SELECT 1 AS "+name)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()

		if names, err := rows.Columns(); err != nil || len(names) != 1 || names[0] != text {
			t.Errorf("%q names a column %q, %v", text, names, err)
		}
	})
}

func literalOnTheServer(t *testing.T, db *sql.DB, setting, text string) (got string) {
	t.Helper()

	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }() // it has only read

	if _, err := tx.ExecContext(t.Context(), "SET LOCAL standard_conforming_strings = "+setting+"; SET LOCAL escape_string_warning = off"); err != nil {
		t.Fatal(err)
	}

	// As bytes: what is sent must be what is stored.
	var bytes []byte
	if err := tx.QueryRowContext(t.Context(), "SELECT convert_to("+store.QuoteLiteral(text)+"::text, 'UTF8')").Scan(&bytes); err != nil {
		t.Fatal(err)
	}

	return string(bytes)
}

// FuzzTimelineOnTheServer: of the name of a WAL file the server makes the floor that Go
// makes of it.
func FuzzTimelineOnTheServer(f *testing.F) {
	for _, seed := range []uint32{1, 2, 9, 10, 255, 256, 0xABCDEF, 1<<23 - 1} {
		f.Add(seed, uint64(0))
		f.Add(seed, uint64(math.MaxUint64))
	}

	db := contract.Open(f, "pgx", newDatabase(f).String())

	const name = "pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn())"

	if got := contract.Query[int64](f, db, "SELECT "+store.SQLFloor); got != floorOf(f, contract.Query[string](f, db, "SELECT "+name)) {
		f.Errorf("the floor of the server's own timeline is %d", got)
	}

	floor := strings.Replace(store.SQLFloor, name, "$1::text", 1)
	if floor == store.SQLFloor {
		f.Fatalf("%s has no %s", floor, name)
	}

	f.Fuzz(func(t *testing.T, timeline uint32, position uint64) {
		// Above this the floor is beyond bigint: a server that was promoted eight million
		// times.
		timeline = timeline%(1<<23-1) + 1
		file := fmt.Sprintf("%08X%016X", timeline, position)

		got := contract.Query[int64](t, db, "SELECT "+floor, file)
		if want := floorOf(t, file); got != want || got != (int64(timeline)-1)<<40+1 {
			t.Errorf("%s: %d, want %d", file, got, want)
		}

		// A timeline's floor is above 2^40 - 1 grants of the one before.
		if timeline > 1 && got <= (int64(timeline)-2)<<40+1<<40-1 {
			t.Errorf("%s: %d is no higher than the timeline before can get", file, got)
		}
	})
}

func floorOf(tb testing.TB, file string) int64 {
	tb.Helper()

	timeline, err := strconv.ParseInt(file[:8], 16, 64)
	if err != nil {
		tb.Fatal(err)
	}

	return (timeline-1)<<40 + 1
}

// FuzzIntervalsOnTheServer: a lease is as long as was asked for, to the microsecond.
func FuzzIntervalsOnTheServer(f *testing.F) {
	const longest = 100 * 365 * 24 * time.Hour // as the package pglocker allows

	for _, seed := range []time.Duration{0, 1, time.Millisecond - 1, time.Second + 1, 24 * time.Hour, longest, longest - 1} {
		f.Add(int64(seed))
	}

	db := contract.Open(f, "pgx", newDatabase(f).String())

	f.Fuzz(func(t *testing.T, ns int64) {
		if ns < 0 || ns > int64(longest) {
			t.Skip("is never sent")
		}

		us := store.Microseconds(time.Duration(ns))

		// By way of a time, as leases are.
		got := contract.Query[string](t, db, `
			SELECT round(extract(epoch FROM ('2001-02-03 UTC'::timestamptz + $1::bigint * interval '1 microsecond')
			                                - '2001-02-03 UTC'::timestamptz)::numeric * 1000000)::text`, us)
		if got != strconv.FormatInt(us, 10) {
			t.Errorf("%d µs are %s on the server", us, got)
		}
	})
}

// FuzzMarksOnTheServer: a mark carries its signature, whatever the moment, and where no other
// stands, it does for at most a modulus less than was asked for.
func FuzzMarksOnTheServer(f *testing.F) {
	for _, signature := range []int64{0, 1, store.MarkModulus / 2, store.MarkModulus - 1} {
		f.Add(signature, int64(1))
		f.Add(signature, int64(10*time.Second/time.Microsecond))
	}

	db := contract.Open(f, "pgx", newDatabase(f).String())
	if err := store.Migrate(f.Context(), db, table, nil); err != nil {
		f.Fatal(err)
	}

	s := store.New(db, table, nil)
	if _, err := s.Acquire(f.Context(), "a", "holder", 10*time.Hour, 0); err != nil {
		f.Fatal(err)
	}

	f.Fuzz(func(t *testing.T, signature, us int64) {
		mark := store.Mark{
			For:       time.Duration(max(us%int64(time.Hour/time.Microsecond), 1)) * time.Microsecond,
			Signature: ((signature % store.MarkModulus) + store.MarkModulus) % store.MarkModulus,
		}
		contract.Exec(t, db, "UPDATE "+table.String()+" SET contended_until = NULL")

		before := contract.Query[time.Time](t, db, "SELECT clock_timestamp()")

		res, err := s.Claim(t.Context(), "a", "waiter", time.Hour, 0, mark)
		if err != nil || !res.Marked {
			t.Fatalf("%+v, %v", res, err)
		}

		got := res.Row.ContendedUntil
		if store.SignatureOf(got) != mark.Signature {
			t.Errorf("%+v is written as %s, signed %d", mark, got, store.SignatureOf(got))
		}

		if earliest := before.Add(mark.For - store.MarkModulus*time.Microsecond); got.Before(earliest) || got.After(res.Row.Now.Add(mark.For)) {
			t.Errorf("%+v, written from %s on, stands until %s", mark, before, got)
		}
	})
}

// FuzzPayloads: who listens is told of the lock that was released, by its id.
func FuzzPayloads(f *testing.F) {
	for _, seed := range contract.OddLockIDs() {
		f.Add(seed)
	}

	db := contract.Open(f, "pgx", newDatabase(f).String())
	if err := store.Migrate(f.Context(), db, table, nil); err != nil {
		f.Fatal(err)
	}

	s := store.New(db, table, nil)

	conn, err := s.OpenListening(f.Context())
	if err != nil {
		f.Fatal(err)
	}

	f.Cleanup(conn.Close)

	if err := conn.Listen(f.Context(), table.Channel()); err != nil {
		f.Fatal(err)
	}

	f.Fuzz(func(t *testing.T, id string) {
		if id == "" || len(id) > 1024 || !utf8.ValidString(id) || strings.Contains(id, "\x00") {
			t.Skip("is no lock id")
		}

		granted, err := s.Acquire(t.Context(), id, "holder", time.Hour, 0)
		if err != nil || granted.Verdict != store.Granted {
			t.Fatalf("%+v, %v", granted, err)
		}

		if _, err := s.Claim(t.Context(), id, "waiter", time.Hour, 0, store.Mark{For: time.Minute}); err != nil {
			t.Fatal(err)
		}

		released, err := s.Release(t.Context(), id, store.State{Generation: granted.Row.Generation}, 0)
		if err != nil || !released.Notified {
			t.Fatalf("%+v, %v", released, err)
		}

		channel, payload, err := conn.Wait(t.Context())
		if err != nil || channel != table.Channel() || payload != id {
			t.Errorf("released %q, heard %q on %q, %v", id, payload, channel, err)
		}
	})
}
