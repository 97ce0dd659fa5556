package top

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ismurov/pglocker"
)

// The parts of the rows of semaphores and read-write locks, behind the last colon of the id.
const (
	partGate   = "gate"   // waiters leave their marks on it
	partIntent = "intent" // held while a writer waits for readers
	partWriter = "w"
)

// fold makes rows of the statuses of a table. Those of a recipe are folded into one row.
type fold struct {
	query  Query
	rows   map[rowKey]*Row
	totals Totals
	hidden int
	// last is the last of the rows that are kept, once there are too many.
	last *Row
	// tokens is told the generation of each row by which changes are counted.
	tokens func(id string, generation int64)
}

func newFold(q Query, tokens func(string, int64)) *fold {
	return &fold{query: q, rows: make(map[rowKey]*Row), tokens: tokens}
}

// parse splits the id of a row. part is "" for locks and elections. ok is false for rows that aren't shown.
func parse(id string) (k rowKey, part string, ok bool) {
	kind, name := pglocker.KindOf(id)

	switch kind {
	case pglocker.KindLock, pglocker.KindElection:
		return rowKey{kind, name}, "", true
	case pglocker.KindSemaphore, pglocker.KindRWLock:
		if i := strings.LastIndexByte(name, ':'); i > 0 {
			return rowKey{kind, name[:i]}, name[i+1:], true
		}
	}

	return rowKey{}, "", false
}

// add folds in a status, as it was at the time now by the database's clock.
func (f *fold) add(s pglocker.LockStatus, now time.Time) {
	k, part, ok := parse(s.LockID)
	if !ok {
		return
	}

	if part == "" || part == partGate { // slots change with their gate
		f.tokens(s.LockID, s.Generation)
	}

	held := s.HeldAt(now)
	hold := Hold{LockID: s.LockID, Token: s.Generation, Owner: s.Owner, Since: s.AcquiredAt, Until: s.ExpiresAt}

	if part == "" {
		if held || k.kind == pglocker.KindElection {
			f.addOne(&Row{Kind: k.kind, Name: k.name}, hold, held, s.Waited)
		}

		return
	}

	r := f.recipe(k, s.LockID)

	switch part {
	case partGate:
		f.wait(r, s.Waited)
	case partIntent:
		f.wait(r, held)
	default:
		if part != partWriter {
			hold.Slot, _ = strconv.Atoi(part)
			r.Slots++
		}

		if held {
			f.hold(r, hold)
		}
	}
}

// addOne adds a lock or an election, which are one row of the table.
func (f *fold) addOne(r *Row, h Hold, held, waited bool) {
	if r.Kind == pglocker.KindElection {
		f.totals.Elections++
	}

	if held {
		f.hold(r, h)
	}

	f.wait(r, waited)

	switch {
	case !f.query.matches(r):
	case f.last != nil && f.query.compare(r, f.last) > 0:
		f.hidden++
	default:
		f.keep(r, h.LockID)
	}
}

// recipe finds or makes the row of a semaphore or a read-write lock.
func (f *fold) recipe(k rowKey, id string) *Row {
	if r := f.rows[k]; r != nil {
		return r
	}

	if k.kind == pglocker.KindSemaphore {
		f.totals.Semaphores++
	} else {
		f.totals.RWLocks++
	}

	r := &Row{Kind: k.kind, Name: k.name}
	f.keep(r, id)

	return r
}

func (f *fold) keep(r *Row, id string) {
	if limit := f.query.Limit; limit > 0 && len(f.rows) >= 2*limit {
		f.cut(id)
	}

	f.rows[r.key()] = r
}

func (f *fold) wait(r *Row, waited bool) {
	if waited && !r.Waited {
		r.Waited = true
		f.totals.Waited++
	}
}

func (f *fold) hold(r *Row, h Hold) {
	r.Holds = append(r.Holds, h)

	t := &f.totals
	t.Held++

	switch r.Kind {
	case pglocker.KindElection:
		t.Led++
	case pglocker.KindSemaphore:
		t.Slots++
	case pglocker.KindRWLock:
		if h.Slot == 0 {
			t.Writers++
		} else {
			t.Readers++
		}
	default:
		t.Locks++
	}

	if !h.Since.IsZero() && (t.Oldest == nil || h.Since.Before(t.Oldest.Since)) {
		t.Oldest = &Oldest{r.Kind, r.Name, h.Since}
	}
}

// cut leaves the rows that the query wants most, and recipes that the row of the given id belongs to. Ids come in
// order, so all rows of other recipes were seen.
func (f *fold) cut(id string) {
	rows := f.sorted()
	f.hidden += max(len(rows)-f.query.Limit, 0)

	kept := make(map[rowKey]*Row, 2*f.query.Limit)
	for _, r := range rows[:min(len(rows), f.query.Limit)] {
		kept[r.key()], f.last = r, r
	}

	for k, r := range f.rows {
		if !r.single() && strings.HasPrefix(id, r.prefix()) && kept[k] == nil {
			kept[k] = r

			if f.query.matches(r) {
				f.hidden--
			}
		}
	}

	f.rows = kept
}

// sorted are the rows that the query asks for.
func (f *fold) sorted() []*Row {
	rows := make([]*Row, 0, len(f.rows))

	for _, r := range f.rows {
		if f.query.matches(r) {
			rows = append(rows, r)
		}
	}

	slices.SortFunc(rows, f.query.compare)

	return rows
}

// into fills a snapshot.
func (f *fold) into(s *Snapshot) {
	rows := f.sorted()
	s.Totals, s.Hidden = f.totals, f.hidden

	if limit := f.query.Limit; limit > 0 && len(rows) > limit {
		s.Hidden += len(rows) - limit
		rows = rows[:limit]
	}

	s.Rows = make([]Row, len(rows))

	for i, r := range rows {
		slices.SortFunc(r.Holds, func(a, b Hold) int { return a.Slot - b.Slot })
		s.Rows[i] = *r
	}
}
