package pglocker_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// BenchmarkPair takes and releases locks, each goroutine its own. An operation is a pair. cpu-ns/op is what this
// process used for it, in the program and in the kernel. Both it and the allocations are the client's alone.
func BenchmarkPair(b *testing.B) {
	db := contract.Open(b, "pgx", contract.NewDatabase(b))
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)

	locker, err := pglocker.NewWithMigrateDB(b.Context(), db, &pglocker.Config{Owner: "host.example.com:12345"})
	contract.Must(b, err)
	b.Cleanup(func() { contract.Must(b, locker.Close(context.Background())) })

	for _, kind := range []struct {
		name string
		pair func(ctx context.Context, id string) error
	}{
		{"lease", func(ctx context.Context, id string) error {
			status, err := locker.AcquireLock(ctx, id, time.Minute)
			if err != nil {
				return err
			}

			return locker.ReleaseLock(ctx, status)
		}},
		{"lock", func(ctx context.Context, id string) error {
			lock, err := locker.TryLock(ctx, id, time.Minute)
			if err != nil {
				return err
			}

			return lock.Unlock(ctx)
		}},
	} {
		for _, goroutines := range []int{1, 256} {
			b.Run(fmt.Sprintf("%s/goroutines-%d", kind.name, goroutines), func(b *testing.B) {
				benchPairs(b, goroutines, 4*goroutines, kind.pair) // rows, connections, plans
				b.ReportAllocs()
				b.ResetTimer()

				began := clientCPU(b)
				benchPairs(b, goroutines, b.N, kind.pair)
				b.ReportMetric(float64(clientCPU(b)-began)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

func benchPairs(b *testing.B, goroutines, pairs int, pair func(context.Context, string) error) {
	b.Helper()

	var (
		group sync.WaitGroup
		left  atomic.Int64
	)

	left.Store(int64(pairs))

	for i := range goroutines {
		id := fmt.Sprint("lock-", i)

		group.Go(func() {
			for left.Add(-1) >= 0 {
				if err := pair(b.Context(), id); err != nil {
					b.Error(err)

					return
				}
			}
		})
	}

	group.Wait()
}
