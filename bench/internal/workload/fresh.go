package workload

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
)

// The tables of W8: one that MigrateDB made, and one of three columns.
var (
	FreshTables = []string{FreshMigrated, "three-columns"}

	FreshMigrated = "migrated"
)

// Fresh are the parameters of W8. analyzed is "empty" or "full": what the table was when it
// was last analyzed.
func Fresh(table, analyzed string, goroutines int) string {
	return fmt.Sprintf("table=%s/analyzed=%s/goroutines=%d", table, analyzed, goroutines)
}

// When a table of W8 was last analyzed.
const (
	AnalyzedEmpty = "empty"
	AnalyzedFull  = "full"
)

// FreshTable is W8: a program uses a table that was just created, and analyzed with two
// locks in it. Every statement is prepared on every connection when thousands of locks
// come. The other table was full when it was analyzed, before the program started. Each
// pair is of another lock, which spreads them over the table. The floor does the same on a full
// table, to compare.
func (b *Bench) FreshTable(ctx context.Context) error {
	for _, table := range FreshTables {
		for _, goroutines := range b.Plan.FreshGoroutines {
			var entries []entry

			add := func(analyzed, name string) {
				key := result.Key{Workload: "W8", Params: Fresh(table, analyzed, goroutines), Contender: name}
				entries = append(entries, entry{name: key.String(), run: func(ctx context.Context) error {
					return b.fresh(ctx, key, table == FreshMigrated, analyzed == AnalyzedEmpty, goroutines)
				}})
			}

			add(AnalyzedEmpty, contender.NamePglocker)
			add(AnalyzedFull, contender.NamePglocker)

			// The floor names holders, and scans a table that was planned for as empty.
			if table == FreshMigrated {
				add(AnalyzedFull, contender.NameFloor)
			}

			if err := interleave(ctx, b.Plan.FreshRounds, entries); err != nil {
				return err
			}
		}
	}

	return nil
}

// fresh is one round, with a table of its own.
func (b *Bench) fresh(ctx context.Context, key result.Key, migrated, empty bool, goroutines int) (err error) {
	newTable := contender.NewTable
	if !migrated {
		newTable = contender.NewTableByHand
	}

	table, err := newTable(ctx, b.Postgres.URL(), "fresh", freshLocks)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, b.drop(ctx, table)) }()

	fill := func() error { return contender.Fill(ctx, b.Postgres.URL(), table, freshLocks, b.Plan.SmallTable) }

	if !empty {
		if err := fill(); err != nil {
			return err
		}

		if err := b.Postgres.Exec(ctx, "ANALYZE public."+string(table)); err != nil {
			return err
		}
	}

	var c contender.Contender = &contender.Pglocker{Server: b.Postgres, Table: table}
	if key.Contender == contender.NameFloor {
		c = &contender.Floor{Server: b.Postgres, Table: table}
	}

	client, err := c.Open(ctx, b.options(c, goroutines))
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, client.Close()) }()

	if err := use(ctx, client); err != nil {
		return err
	}

	if empty {
		if err := fill(); err != nil {
			return err
		}
	}

	l := b.load(goroutines)
	l.lock = anyLock(goroutines, b.Plan.SmallTable)

	s, err := pairs(ctx, c, l, client)
	if err == nil {
		b.record(key, s, nil)
	}

	return err
}

const (
	// freshLocks are in the table when it is first analyzed.
	freshLocks = 2

	// A statement's plan is kept from its sixth execution on a connection.
	freshUsers = 64
	freshUses  = 20
)

// use has goroutines take and release the first locks, so every connection prepares all
// statements.
func use(ctx context.Context, client contender.Client) error {
	var (
		group sync.WaitGroup
		errs  = make([]error, freshUsers)
	)

	for g := range freshUsers {
		group.Go(func() {
			for n := range freshUses {
				release, err := client.TryAcquire(ctx, contender.ID((g+n)%freshLocks))
				if err == nil {
					err = release(ctx)
				}

				if err != nil && !errors.Is(err, contender.ErrHeld) {
					errs[g] = err

					return
				}
			}
		})
	}

	group.Wait()

	return errors.Join(errs...)
}
