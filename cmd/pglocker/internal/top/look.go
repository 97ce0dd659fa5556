package top

import (
	"context"
	"time"

	"github.com/ismurov/pglocker"
)

// Looker looks at a table again and again. It is not safe for concurrent use.
type Looker struct {
	table Table
	// large: the table has more than smallTable rows, so those of free locks aren't read.
	large bool
	// before is the generation of rows at the last look, which began at beforeAt by this machine's clock.
	before   map[string]int64
	beforeAt time.Time
}

const (
	// smallTable is how many rows are read as they are. That is ten statements and a megabyte or two, in some tens of
	// milliseconds.
	smallTable = 10_000
	// maxTokens is of how many rows changes are counted.
	maxTokens = 100_000
	// jump is more than a token can grow between two looks. After the promotion of a standby it does.
	jump = 1 << 32
)

// NewLooker returns a Looker. It asks nothing yet.
func NewLooker(table Table) *Looker { return &Looker{table: table} }

// Look reads the table.
func (l *Looker) Look(ctx context.Context, q Query) (*Snapshot, error) {
	began := time.Now()
	s := &Snapshot{}

	var err error
	if s.At, s.Standby, err = l.table.Clock(ctx); err != nil {
		return nil, err
	}

	owners, err := l.table.HasOwners(ctx)
	if err != nil {
		return nil, err
	}

	s.NoOwners = !owners
	now := func() time.Time { return s.At.Add(time.Since(began)) }

	f, tokens, err := l.read(ctx, q, now)
	if err != nil {
		return nil, err
	}

	f.into(s)

	if elapsed := began.Sub(l.beforeAt).Seconds(); l.before != nil && elapsed > 0 {
		rate := float64(changes(l.before, tokens, l.large)) / elapsed
		s.Changes, s.ChangesAtLeast = &rate, l.large
	}

	l.before, l.beforeAt = tokens, began
	s.Took = time.Since(began)

	return s, nil
}

// read reads all rows, or all but those of free locks.
func (l *Looker) read(ctx context.Context, q Query, now func() time.Time) (*fold, map[string]int64, error) {
	filters := []pglocker.LocksFilter{{}}
	if l.large {
		filters = []pglocker.LocksFilter{
			{Kind: pglocker.KindLock, Held: true},
			{Kind: pglocker.KindElection},
			{Kind: pglocker.KindSemaphore},
			{Kind: pglocker.KindRWLock},
		}
	}

	tokens := make(map[string]int64)
	f := newFold(q, func(id string, generation int64) {
		if len(tokens) < maxTokens {
			tokens[id] = generation
		}
	})

	rows := 0

	for _, filter := range filters {
		for status, err := range l.table.Locks(ctx, filter) {
			if err != nil {
				return nil, nil, err
			}

			if rows++; rows > smallTable && !l.large {
				l.large, l.before = true, nil

				return l.read(ctx, q, now)
			}

			f.add(status, now())
		}
	}

	return f, tokens, nil
}

// changes is by how much tokens have grown. Of held locks alone, those that came were granted, and those that went
// were released. Where all rows are read, a row that went was pruned.
func changes(before, after map[string]int64, heldOnly bool) (n int64) {
	for id, now := range after {
		then, known := before[id]

		switch grown := now - then; {
		case !known || grown > jump:
			n++
		case grown > 0:
			n += grown
		}
	}

	if heldOnly {
		for id := range before {
			if _, ok := after[id]; !ok {
				n++
			}
		}
	}

	return n
}
