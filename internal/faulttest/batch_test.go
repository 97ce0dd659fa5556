package faulttest

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// largestBatch is a tracer of pgx that keeps the most ids that one statement had.
type largestBatch struct {
	contract.OnStatement

	ids atomic.Int64
}

func (l *largestBatch) TraceBatchStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceBatchStartData) context.Context {
	for _, query := range data.Batch.QueuedQueries {
		l.count(query.Arguments)
	}

	return ctx
}

func (l *largestBatch) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	l.count(data.Args)

	return ctx
}

func (l *largestBatch) count(args []any) {
	for _, arg := range args {
		if array, ok := arg.(pgtype.ArrayGetter); ok {
			for n := int64(array.Dimensions()[0].Length); ; {
				if most := l.ids.Load(); n <= most || l.ids.CompareAndSwap(most, n) {
					break
				}
			}
		}
	}
}

// TestBatchesAreBounded: of thousands of requests that gathered while the pool was used up,
// no more than 512 go in one statement.
func TestBatchesAreBounded(t *testing.T) {
	t.Parallel()

	const callers = 3000

	cfg, err := pgx.ParseConfig(contract.NewDatabase(t))
	contract.Must(t, err)

	seen := new(largestBatch)
	cfg.Tracer = seen

	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(2)
	contract.Must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))

	asked := make(chan struct{}, callers)
	locker := contract.WatchedLocker(t, db, starts(func(start pglocker.OperationStart) {
		if start.Operation == pglocker.OperationAcquire {
			asked <- struct{}{}
		}
	}))
	t.Cleanup(func() { _ = db.Close() })

	_, err = locker.CreateLock(t.Context(), "any") // the table is known from here on
	contract.Must(t, err)

	var taken []interface{ Close() error }

	for range 2 {
		conn, err := db.Conn(t.Context())
		contract.Must(t, err)

		taken = append(taken, conn)
	}

	var group sync.WaitGroup

	for i := range callers {
		group.Go(func() {
			if _, err := locker.AcquireLock(t.Context(), fmt.Sprint(i), time.Minute); err != nil {
				t.Error(err)
			}
		})
	}

	for range callers {
		contract.Receive(t, "a request is made", asked)
	}

	for _, conn := range taken {
		contract.Must(t, conn.Close())
	}

	group.Wait()

	if most := seen.ids.Load(); most > 512 || most < 256 {
		t.Errorf("a statement had %d ids, want 512 at most, and not a few", most)
	}
}

// starts is an observer that is called with each operation that starts.
type starts func(start pglocker.OperationStart)

func (f starts) OperationStart(ctx context.Context, start pglocker.OperationStart) context.Context {
	f(start)

	return ctx
}

func (starts) OperationEnd(context.Context, pglocker.OperationEnd) {}

func (starts) LockLost(pglocker.LockLost) {}

// TestUnlocksShareConnections: many unlocks at once don't each open a connection
// because the pool is busy, with other unlocks above all.
func TestUnlocksShareConnections(t *testing.T) {
	t.Parallel()

	config, err := pgx.ParseConfig(contract.NewDatabase(t))
	contract.Must(t, err)

	const (
		locks = 300
		pool  = 4
	)

	var (
		ctx       = t.Context()
		connected atomic.Int64
		db        = stdlib.OpenDB(*config, stdlib.OptionBeforeConnect(func(context.Context, *pgx.ConnConfig) error {
			connected.Add(1)

			return nil
		}))
		locker = contract.NewLockerOver(t, db)
		held   []*pglocker.Lock
	)

	db.SetMaxOpenConns(pool)
	db.SetMaxIdleConns(pool)

	for i := range locks {
		lock, err := locker.TryLock(ctx, fmt.Sprint(i), time.Minute)
		contract.Must(t, err)

		held = append(held, lock)
	}

	var unlocks sync.WaitGroup

	for _, lock := range held {
		unlocks.Go(func() {
			if err := lock.Unlock(ctx); err != nil {
				t.Error(err)
			}
		})
	}

	unlocks.Wait()

	// The spare connection is closed when nobody uses it, and may be opened again.
	if n := connected.Load(); n > locks/5 {
		t.Errorf("%d connections were opened for %d unlocks, want few", n, locks)
	}
}
