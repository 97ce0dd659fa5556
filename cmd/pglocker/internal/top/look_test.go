package top

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker"
)

// fakeTable is a table in memory.
type fakeTable struct {
	mu   sync.Mutex
	rows []pglocker.LockStatus
	// takes is how long a scan takes.
	takes   time.Duration
	err     error
	three   bool
	standby bool

	filters []pglocker.LocksFilter // of all scans
	began   []time.Time
	freed   []string
	events  []pglocker.Event
}

func (f *fakeTable) Clock(context.Context) (time.Time, bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	return t0, f.standby, f.err
}

func (f *fakeTable) HasOwners(context.Context) (bool, error) { return !f.three, nil }

func (f *fakeTable) Locks(ctx context.Context, filter pglocker.LocksFilter) iter.Seq2[pglocker.LockStatus, error] {
	return func(yield func(pglocker.LockStatus, error) bool) {
		f.mu.Lock()
		f.filters, f.began = append(f.filters, filter), append(f.began, time.Now())
		rows, err, takes := slices.Clone(f.rows), f.err, f.takes
		f.mu.Unlock()

		if takes > 0 {
			select {
			case <-time.After(takes):
			case <-ctx.Done():
				err = ctx.Err()
			}
		}

		if err != nil {
			yield(pglocker.LockStatus{}, err)

			return
		}

		for _, s := range rows {
			kind, _ := pglocker.KindOf(s.LockID)
			if strings.HasPrefix(s.LockID, filter.Prefix) && (filter.Kind == "" || filter.Kind == kind) && (!filter.Held || s.HeldAt(t0)) {
				if !yield(s, nil) {
					return
				}
			}
		}
	}
}

func (f *fakeTable) History(_ context.Context, lockID string, since time.Time) iter.Seq2[pglocker.Event, error] {
	return func(yield func(pglocker.Event, error) bool) {
		if f.events == nil {
			yield(pglocker.Event{}, pglocker.ErrHistoryNotFound)
		}

		for _, e := range f.events {
			if e.LockID == lockID && !e.At.Before(since) && !yield(e, nil) {
				return
			}
		}
	}
}

func (f *fakeTable) ForceRelease(_ context.Context, lockID string, token int64, reason string) error {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.freed = append(f.freed, fmt.Sprintf("%s %d %s", lockID, token, reason))

	return f.err
}

// scans are the numbers of scans, and forgets them.
func (f *fakeTable) scans() int {
	f.mu.Lock()
	defer f.mu.Unlock()

	n := len(f.filters)
	f.filters, f.began = nil, nil

	return n
}

// TestLook: what is seen, and by how much tokens have grown since the look before.
func TestLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := &fakeTable{rows: table()}
		l := NewLooker(table)

		s := mustLook(t, l)
		if s.Changes != nil || len(s.Rows) != 7 || s.NoOwners || s.Standby || table.scans() != 1 {
			t.Errorf("the first look: %+v", s)
		}

		time.Sleep(2 * time.Second)

		table.rows[0].Generation += 2  // released, and granted again
		table.rows[1].Generation++     // a free lock was granted
		table.rows[8].Generation++     // the gate of a read-write lock
		table.rows[5].Generation += 30 // and its slot, which isn't counted
		table.rows[3].Generation += 1 << 41
		table.rows = slices.Insert(table.rows, 2, heldRow("import/44", 2, "a#1", 0))

		if s = mustLook(t, l); s.Changes == nil || *s.Changes != 6/2. || s.ChangesAtLeast {
			t.Errorf("changes: %v", deref(s.Changes))
		}
	})
}

func deref(f *float64) float64 {
	if f == nil {
		return -1
	}

	return *f
}

func mustLook(t *testing.T, l *Looker) *Snapshot {
	t.Helper()

	s, err := l.Look(t.Context(), Query{})
	if err != nil {
		t.Fatal(err)
	}

	return s
}

// TestLookAtLargeTable: rows of free locks aren't read, and changes are a lower bound.
func TestLookAtLargeTable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var rows []pglocker.LockStatus
		for i := range smallTable {
			rows = append(rows, freeRow(fmt.Sprintf("a%06d", i), 1))
		}

		table := &fakeTable{rows: append(rows, table()...)}
		l := NewLooker(table)

		if s := mustLook(t, l); len(s.Rows) != 7 || s.Changes != nil {
			t.Errorf("the first look: %+v", s)
		}

		if filters := table.filters; len(filters) != 5 || filters[0] != (pglocker.LocksFilter{}) ||
			filters[1] != (pglocker.LocksFilter{Kind: pglocker.KindLock, Held: true}) || filters[4].Kind != pglocker.KindRWLock || filters[4].Held {
			t.Errorf("scans: %+v", filters)
		}

		table.scans()
		time.Sleep(time.Second)

		table.rows[1] = heldRow("a000001", 2, "b#1", 0) // granted
		table.rows[smallTable] = freeRow("import/42", 9)
		table.rows[2].Generation = 77 // granted and released: not seen

		s := mustLook(t, l)
		if deref(s.Changes) != 2 || !s.ChangesAtLeast || perSecond(s) != "≥ 2.0" {
			t.Errorf("changes: %v, %s", deref(s.Changes), perSecond(s))
		}

		if table.scans() != 4 {
			t.Error("the second look reads all rows")
		}
	})
}

// TestLookFails: the error is returned, and the next look is as if nothing had been.
func TestLookFails(t *testing.T) {
	t.Parallel()

	table := &fakeTable{rows: table(), three: true, standby: true}
	l := NewLooker(table)
	table.err = errors.New("no connection")

	if _, err := l.Look(t.Context(), Query{}); !errors.Is(err, table.err) {
		t.Errorf("%v", err)
	}

	table.err = nil

	if s := mustLook(t, l); !s.NoOwners || !s.Standby || len(s.Rows) != 7 {
		t.Errorf("%+v", s)
	}
}
