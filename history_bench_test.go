package pglocker_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// BenchmarkHistory takes and releases locks on a table without a history and on one with, in rounds that
// alternate. An operation is a round of 4,000 pairs on each. pairs/s are medians of the rounds; "times" is
// the median with a history over that without, as time per pair. renewal-times is the same for statements
// that renew 500 leases.
func BenchmarkHistory(b *testing.B) {
	server := durableServer(b)

	for _, goroutines := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("goroutines-%d", goroutines), func(b *testing.B) {
			without := newHistoryBench(b, openBench(b, server), fmt.Sprintf("without_%d", goroutines), false)
			with := newHistoryBench(b, openBench(b, server), fmt.Sprintf("with_%d", goroutines), true)

			for _, each := range []*historyBench{without, with} {
				each.round(b, goroutines, 500) // connections, plans
				each.took, each.wal = nil, nil
			}

			b.ResetTimer()

			for range b.N {
				without.round(b, goroutines, 4000)
				with.round(b, goroutines, 4000)
			}

			b.ReportMetric(1/median(without.took), "pairs/s")
			b.ReportMetric(1/median(with.took), "history-pairs/s")
			b.ReportMetric(median(with.took)/median(without.took), "times")
			b.ReportMetric(median(without.wal), "WAL-bytes/pair")
			b.ReportMetric(median(with.wal), "history-WAL-bytes/pair")
		})
	}

	b.Run("renewals", func(b *testing.B) {
		without := newHistoryBench(b, openBench(b, server), "without_renewals", false)
		with := newHistoryBench(b, openBench(b, server), "with_renewals", true)

		for _, each := range []*historyBench{without, with} {
			each.renew(b)
			each.took = nil
		}

		b.ResetTimer()

		for range b.N {
			without.renew(b)
			with.renew(b)
		}

		b.ReportMetric(median(with.took)/median(without.took), "renewal-times")
	})
}

// historyBench is a table, and what its rounds took, in seconds and bytes per pair.
type historyBench struct {
	locker    *pglocker.Locker
	db        *sql.DB
	table     string
	took, wal []float64
}

func newHistoryBench(b *testing.B, db *sql.DB, table string, history bool) *historyBench {
	b.Helper()

	cfg := &pglocker.Config{Table: table, Owner: "host.example.com:12345"}
	contract.Must(b, pglocker.MigrateDB(b.Context(), db, cfg))

	if history {
		contract.Must(b, pglocker.MigrateHistory(b.Context(), db, cfg))
	}

	locker, err := pglocker.New(db, cfg)
	contract.Must(b, err)
	b.Cleanup(func() { contract.Must(b, locker.Close(context.Background())) })

	return &historyBench{locker: locker, db: db, table: table}
}

// round takes and releases so many locks, each goroutine one of its own.
func (h *historyBench) round(b *testing.B, goroutines, pairs int) {
	var (
		group sync.WaitGroup
		left  atomic.Int64
	)

	left.Store(int64(pairs))

	lsn := func() float64 {
		return contract.Query[float64](b, h.db, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
	}
	before, began := lsn(), time.Now()

	for i := range goroutines {
		id := fmt.Sprint("lock-", i)

		group.Go(func() {
			for left.Add(-1) >= 0 {
				status, err := h.locker.AcquireLock(b.Context(), id, time.Minute)
				if err == nil {
					err = h.locker.ReleaseLock(b.Context(), status)
				}

				if err != nil {
					b.Error(err)
				}
			}
		})
	}

	group.Wait()

	h.took = append(h.took, time.Since(began).Seconds()/float64(pairs))
	h.wal = append(h.wal, (lsn()-before)/float64(pairs))
}

// renew renews 500 leases by SQL as a Locker does.
func (h *historyBench) renew(b *testing.B) {
	const leases = 500

	contract.Exec(b, h.db, fmt.Sprintf(`INSERT INTO pglocker.%s (lock_id, generation, expires_at, owner, acquired_at)
		SELECT 'lease-' || n, 2, now() + interval '1 day', 'me', now() FROM generate_series(1, %d) AS n ON CONFLICT DO NOTHING`, h.table, leases))

	began := time.Now()

	for range 10 {
		contract.Exec(b, h.db, fmt.Sprintf(`WITH due AS MATERIALIZED (
				SELECT ctid AS row_version FROM pglocker.%[1]s WHERE generation = 2 AND expires_at > clock_timestamp() FOR NO KEY UPDATE SKIP LOCKED)
			UPDATE pglocker.%[1]s AS l SET expires_at = clock_timestamp() + interval '1 day' FROM due WHERE l.ctid = due.row_version`, h.table))
	}

	h.took = append(h.took, time.Since(began).Seconds()/leases/10)
}

func median(of []float64) float64 {
	sorted := slices.Sorted(slices.Values(of))

	return sorted[len(sorted)/2]
}
