package store

import (
	"context"
	"sync/atomic"
)

// shape is what the Store found out about its table and server on first use.
type shape struct {
	form
	// secured: row-level security applies to this role, and may hide rows from it.
	secured bool
	// statements are written for this table and form.
	statements statements
	// shards are known in the plain dialect alone.
	shards shards
}

// shapeCache remembers the shape, but no failed look-up: the table may be made later.
type shapeCache struct {
	found atomic.Pointer[shape]
	// last is what was found last, even if it has to be looked up again.
	last atomic.Pointer[shape]
	// passed counts requests that were passed over, see passedOver.
	passed atomic.Int64
	// floorless: the log says that the server has no timeline.
	floorless atomic.Bool
	// speaks is the dialect that was asked for. plainSaid: the log says that it is the plain one.
	speaks    Dialect
	plainSaid atomic.Bool
	// probed: the server was asked which dialect it takes.
	probed atomic.Bool
	// singly: the plain dialect renews one lock in a statement.
	singly atomic.Bool
	// asking are the renewals under way, of the plain dialect.
	asking asking
	// misled is the last shape of whose shards a statement for several locks was refused.
	misled atomic.Pointer[shape]
	// looking is full while enough requests look it up: the connection of the first may be dead.
	looking chan struct{}
}

// passedBefore is how many requests are passed over before the shape is looked up anew.
const passedBefore = 64

// passedOver notes that a batch passed over a lock that is free. That happens when another transaction has the row. It
// always happens on a table that has been partitioned since it was looked at, see grantByID.
func (c *shapeCache) passedOver() {
	if c.passed.Add(1)%passedBefore == 0 {
		c.found.Store(nil)
	}
}

// shapeOf returns the table's shape. Of many first callers a few look it up.
func (s *Store) shapeOf(ctx context.Context) (*shape, error) {
	if found := s.shape.found.Load(); found != nil {
		return found, nil
	}

	select {
	case s.shape.looking <- struct{}{}:
		defer func() { <-s.shape.looking }()
	case <-ctx.Done():
		return nil, ended(ctx)
	}

	if found := s.shape.found.Load(); found != nil {
		return found, nil
	}

	return s.findOut(ctx)
}

// findOut finds out the shape.
func (s *Store) findOut(ctx context.Context) (*shape, error) {
	if err := s.acquaint(ctx); err != nil {
		return nil, err
	}

	first := s.shape.last.Load() == nil

	f, secured, err := s.lookUp(ctx)
	if err == nil {
		f, err = s.chooseDialect(ctx, f, first)
	}

	if err != nil {
		return nil, err
	}

	found := &shape{form: f, secured: secured, statements: render(s.table, f)}
	if f.plain {
		if found.shards, err = s.findShards(ctx); err != nil {
			return nil, err
		}
	}

	if first && !s.shape.last.CompareAndSwap(nil, found) {
		// Another caller was first. By now the server may have refused what it found.
		if found = s.shape.found.Load(); found != nil {
			return found, nil
		}

		return s.findOut(ctx)
	}

	s.shape.last.Store(found)
	s.shape.found.Store(found)

	return found, nil
}

// lookUp asks the server for the form, and whether row-level security applies.
func (s *Store) lookUp(ctx context.Context) (f form, secured bool, err error) {
	if f, ok, err := s.usual(ctx); ok || err != nil {
		return f, false, err
	}

	table, err := s.description(ctx)
	if err != nil {
		return f, false, err
	}

	if err := s.usable(table); err != nil {
		return f, false, err
	}

	floor, err := s.hasTimeline(ctx)

	return table.form(floor), table.secured, err
}

// changed looks the shape up, if it has to be, and reports whether it is another.
func (s *Store) changed(ctx context.Context, known *shape) (*shape, bool) {
	found, err := s.shapeOf(ctx)
	if err != nil {
		return known, false
	}

	return found, found.form != known.form
}
