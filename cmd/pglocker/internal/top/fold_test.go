package top

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

// t0 is the database's time in tests.
var t0 = time.Date(2026, 11, 27, 3, 12, 0, 0, time.UTC)

// heldRow is a row whose lease runs, granted that long ago.
func heldRow(id string, token int64, owner string, ago time.Duration) pglocker.LockStatus {
	return pglocker.LockStatus{
		LockID: id, Generation: token, Owner: owner, AcquiredAt: t0.Add(-ago), ExpiresAt: t0.Add(time.Minute),
	}
}

func freeRow(id string, token int64) pglocker.LockStatus {
	return pglocker.LockStatus{LockID: id, Generation: token, ExpiresAt: t0.Add(-time.Second)}
}

func waitedFor(s pglocker.LockStatus) pglocker.LockStatus {
	s.Waited = true

	return s
}

// table is the rows of a table with everything in it, in the order of ids.
func table() []pglocker.LockStatus {
	return []pglocker.LockStatus{
		heldRow("import/42", 8, "ops-1#a.1", 3*time.Hour),
		freeRow("import/43", 9),
		waitedFor(heldRow("nightly", 4, "web-3#b.1", time.Minute)),
		heldRow("pglocker:election:billing", 6, "web-1#c.1", time.Hour),
		waitedFor(freeRow("pglocker:election:cleanup", 3)),
		heldRow("pglocker:rwlock:config:1", 12, "web-1#c.2", 2*time.Minute),
		heldRow("pglocker:rwlock:config:2", 13, "web-2#d.1", 4*time.Minute),
		freeRow("pglocker:rwlock:config:3", 5),
		freeRow("pglocker:rwlock:config:gate", 13),
		heldRow("pglocker:rwlock:config:intent", 3, "web-3#b.2", time.Second),
		freeRow("pglocker:rwlock:config:w", 11),
		freeRow("pglocker:rwlock:schema:gate", 2),
		heldRow("pglocker:rwlock:schema:w", 2, "ops-1#a.3", time.Second),
		heldRow("pglocker:semaphore:a:b:1", 20, "web-1#c.4", 9*time.Second),
		heldRow("pglocker:semaphore:a:b:10", 20, "web-1#c.4", 9*time.Second),
		heldRow("pglocker:semaphore:a:b:2", 21, "web-2#d.4", 5*time.Second),
		freeRow("pglocker:semaphore:a:b:3", 7),
		waitedFor(freeRow("pglocker:semaphore:a:b:gate", 21)),
		heldRow("pglocker:term:billing:6", 6, "web-1#c.1", time.Hour),
		freeRow("pglocker:watermark", 99),
	}
}

func folded(q Query, rows ...pglocker.LockStatus) *Snapshot {
	f := newFold(q, func(string, int64) {})
	for _, s := range rows {
		f.add(s, t0)
	}

	s := &Snapshot{}
	f.into(s)

	return s
}

// names are the rows as "kind name: what holds them".
func names(rows []Row) (names []string) {
	for i := range rows {
		r := &rows[i]
		text := fmt.Sprintf("%s %s: %s", r.Kind, r.Name, holders(r, false))

		if r.Waited {
			text += ", waited"
		}

		names = append(names, text)
	}

	return names
}

// TestFold: rows of a recipe are one row, those for the library alone are none, and a lock that is free isn't
// listed.
func TestFold(t *testing.T) {
	t.Parallel()

	s := folded(Query{Order: ByName}, table()...)

	want := []string{
		"semaphore a:b: ■■■□ 3 held, waited",
		"election billing: web-1",
		"election cleanup: no leader, waited",
		"rwlock config: 2 readers, waited",
		"lock import/42: ops-1",
		"lock nightly: web-3, waited",
		"rwlock schema: writer ops-1",
	}
	if got := names(s.Rows); !slices.Equal(got, want) {
		t.Errorf("rows:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}

	totals := s.Totals
	oldest := totals.Oldest
	totals.Oldest = nil

	if want := (Totals{
		Held: 9, Waited: 4, Locks: 2, Elections: 2, Led: 1, Semaphores: 1, Slots: 3, RWLocks: 2, Readers: 2, Writers: 1,
	}); totals != want {
		t.Errorf("totals %+v, want %+v", totals, want)
	}

	if oldest == nil || oldest.Name != "import/42" || !oldest.Since.Equal(t0.Add(-3*time.Hour)) {
		t.Errorf("the oldest hold: %+v", oldest)
	}

	sem := s.Rows[0]
	if slots := []int{sem.Holds[0].Slot, sem.Holds[1].Slot, sem.Holds[2].Slot}; !slices.Equal(slots, []int{1, 2, 10}) || sem.Slots != 4 {
		t.Errorf("slots %v of %d", slots, sem.Slots)
	}

	if sem.token() != 21 || !sem.since().Equal(t0.Add(-9*time.Second)) {
		t.Errorf("the semaphore: token %d since %s", sem.token(), sem.since())
	}
}

// TestFoldLimit: of many rows the first by the order are kept, memory doesn't grow with the others, and what is kept
// of a recipe is complete.
func TestFoldLimit(t *testing.T) {
	t.Parallel()

	const limit = 10

	for _, order := range []Order{ByAge, ByName, ByLease, ByWait} {
		f := newFold(Query{Limit: limit, Order: order, Text: "x"}, func(string, int64) {})
		add := func(s pglocker.LockStatus) {
			f.add(s, t0)

			if len(f.rows) > 2*limit+1 {
				t.Fatalf("%s: %d rows in memory", order, len(f.rows))
			}
		}

		for i := range 5000 { // the later, the older
			add(heldRow(fmt.Sprintf("x%05d", i), 1, "a#1", time.Duration(i)*time.Second))
			add(heldRow(fmt.Sprintf("other%05d", i), 1, "a#1", time.Duration(i)*time.Second))
		}

		for i := range 100 {
			prefix := fmt.Sprintf("pglocker:semaphore:s%03d:", i)
			for slot := range 30 {
				owner := "a#1"
				if slot == 29 {
					owner = "x#1" // it matches by its last slot alone
				}

				add(heldRow(prefix+fmt.Sprint(slot+1), 1, owner, time.Duration(slot)*time.Hour))
			}
		}

		s := &Snapshot{}
		f.into(s)

		if len(s.Rows) != limit || s.Hidden != 5100-limit {
			t.Errorf("%s: %d rows, %d hidden", order, len(s.Rows), s.Hidden)
		}

		for i := range s.Rows {
			r := &s.Rows[i]
			if !r.single() && len(r.Holds) != 30 {
				t.Errorf("%s: %s has %d holds", order, r.Name, len(r.Holds))
			}
		}

		if s.Rows[0].Name != "s000" {
			t.Errorf("%s: the first is %q", order, s.Rows[0].Name)
		}

		if s.Totals.Held != 10000+3000 || s.Totals.Locks != 10000 || s.Totals.Semaphores != 100 {
			t.Errorf("%s: totals %+v", order, s.Totals)
		}
	}
}

// TestFoldKeepsTheOldest: of locks that come later, those are kept that the order puts first.
func TestFoldKeepsTheOldest(t *testing.T) {
	t.Parallel()

	var rows []pglocker.LockStatus
	for i := range 5000 {
		rows = append(rows, heldRow(fmt.Sprintf("x%05d", i), 1, "a#1", time.Duration(i*7919%5000)*time.Second))
	}

	s := folded(Query{Limit: 10}, rows...)
	for i, r := range s.Rows {
		if age := t0.Sub(r.since()); age != time.Duration(4999-i)*time.Second {
			t.Errorf("row %d has been held for %s", i, age)
		}
	}

	if len(s.Rows) != 10 || s.Hidden != 4990 {
		t.Errorf("%d rows, %d hidden", len(s.Rows), s.Hidden)
	}
}

// TestFoldNestedNames: the rows of a semaphore may have those of another between them.
func TestFoldNestedNames(t *testing.T) {
	t.Parallel()

	s := folded(Query{Limit: 1, Order: ByWait},
		heldRow("a", 2, "a#1", time.Hour), heldRow("b", 2, "a#1", time.Hour),
		heldRow("pglocker:semaphore:jobs:1", 2, "a#1", time.Second),
		heldRow("pglocker:semaphore:jobs:eu:1", 2, "a#1", time.Second),
		freeRow("pglocker:semaphore:jobs:eu:gate", 2),
		waitedFor(freeRow("pglocker:semaphore:jobs:gate", 2)),
	)
	if got := names(s.Rows); !slices.Equal(got, []string{"semaphore jobs: ■ 1 held, waited"}) || s.Hidden != 3 {
		t.Errorf("%q, %d hidden", got, s.Hidden)
	}
}

// TestHostileNames: nothing in an id or an owner reaches the terminal as a command.
func TestHostileNames(t *testing.T) {
	t.Parallel()

	id := "a\x1b[2J\nb\u202e\u0007é漢"

	s := folded(Query{}, heldRow(id, 1, "o\x1b]0;x\x07#1", time.Second))
	for _, text := range []string{printable(s.Rows[0].Name), holders(&s.Rows[0], false)} {
		if strings.ContainsAny(text, "\x1b\n\x07\u202e") {
			t.Errorf("%q", text)
		}
	}

	if got := printable(s.Rows[0].Name); got != `a\x1b[2J\nb\u202e\aé漢` {
		t.Errorf("%q", got)
	}
}
