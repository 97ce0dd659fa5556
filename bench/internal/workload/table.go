package workload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/ismurov/pglocker/bench/internal/contender"
	"github.com/ismurov/pglocker/bench/internal/result"
)

// Locks are the parameters of W5.
func Locks(locks, goroutines int) string {
	return fmt.Sprintf("locks=%d/goroutines=%d", locks, goroutines)
}

// UniformLocks are those of its second part.
func UniformLocks(locks int) string {
	return fmt.Sprintf("locks=%d/goroutines=%d/ids=uniform", locks, uniformGoroutines)
}

const uniformGoroutines = 256

// LargeTable is W5: W1 and W2 on a small and on a large table, by pglocker alone. Each
// goroutine keeps to its lock. In the second part it picks another one of the whole table
// every time. Most pages are then touched for the first time since the last checkpoint, and
// written to the WAL as a whole. The floor does the same, to compare.
func (b *Bench) LargeTable(ctx context.Context) (err error) {
	type sized struct {
		locks int
		table contender.Table
	}

	var tables []sized

	// Both are new: other workloads spread the rows of a table.
	for _, locks := range []int{b.Plan.SmallTable, b.Plan.LargeTable} {
		began := time.Now()

		t := sized{locks: locks}
		if t.table, err = contender.NewTable(ctx, b.Postgres.URL(), fmt.Sprintf("locks_%d", locks), locks); err != nil {
			return err
		}

		defer func() { err = errors.Join(err, b.drop(ctx, t.table)) }()

		b.Say("  filled a table with %d locks in %v", locks, time.Since(began).Round(time.Second))

		tables = append(tables, t)
	}

	if err := b.Postgres.Checkpoint(ctx); err != nil {
		return err
	}

	for _, goroutines := range b.Plan.TableGoroutines {
		var entries []entry

		for _, t := range tables {
			c := &contender.Pglocker{Server: b.Postgres, Table: t.table}
			key := result.Key{Workload: "W5", Params: Locks(t.locks, goroutines), Contender: c.Name()}
			entries = append(entries, entry{name: key.String(), run: func(ctx context.Context) error {
				return b.measure(ctx, key, c, b.options(c, goroutines), b.load(goroutines))
			}})
		}

		if err := interleave(ctx, b.Plan.TableRounds, entries); err != nil {
			return err
		}
	}

	if !b.Plan.UniformIDs {
		return nil
	}

	var entries []entry

	for _, t := range tables {
		for _, c := range []contender.Contender{
			&contender.Pglocker{Server: b.Postgres, Table: t.table},
			&contender.Floor{Server: b.Postgres, Table: t.table},
		} {
			key := result.Key{Workload: "W5", Params: UniformLocks(t.locks), Contender: c.Name()}
			entries = append(entries, entry{name: key.String(), run: func(ctx context.Context) error {
				l := b.load(uniformGoroutines)
				l.lock = anyLock(uniformGoroutines, t.locks)

				return b.measure(ctx, key, c, b.options(c, uniformGoroutines), l)
			}})
		}
	}

	return interleave(ctx, b.Plan.TableRounds, entries)
}

// anyLock gives a goroutine another random lock every time, which no other goroutine uses.
func anyLock(goroutines, locks int) func(goroutine, n int) int {
	return func(goroutine, _ int) int { return rand.IntN(locks/goroutines)*goroutines + goroutine }
}
