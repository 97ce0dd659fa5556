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

// statementsSent counts statements that grant or release, and their locks.
type statementsSent struct{ statements, locks atomic.Int64 }

func (*statementsSent) OperationStart(ctx context.Context, _ pglocker.OperationStart) context.Context {
	return ctx
}
func (*statementsSent) OperationEnd(context.Context, pglocker.OperationEnd) {}
func (*statementsSent) LockLost(pglocker.LockLost)                          {}

func (s *statementsSent) BatchSent(batch pglocker.BatchSent) {
	s.statements.Add(1)
	s.locks.Add(int64(batch.Locks))
}

// TestCitusShardsSplit: requests for locks of one shard go in one statement. When a shard is split in two, a Locker has
// wrong ideas of which these are. It costs no request, and it learns the new ones.
func TestCitusShardsSplit(t *testing.T) {
	t.Parallel()

	const locks = 128

	db := contract.Open(t, "pgx", citusURL(t))
	cfg := &pglocker.Config{Scheme: "pglocker_split", Dialect: pglocker.DialectPlain}

	// Citus splits the shards of all tables that were distributed alike: not other tests'.
	contract.Exec(t, db, "DROP SCHEMA IF EXISTS pglocker_split CASCADE")
	contract.Must(t, pglocker.MigrateDB(t.Context(), db, cfg))
	contract.Exec(t, db, "SELECT create_distributed_table('pglocker_split.lock_statuses', 'lock_id', colocate_with := 'none')")

	sent := new(statementsSent)
	cfg.Observer = sent
	locker := newCitusLocker(t, db, cfg)

	pairs := func(rounds int) {
		var group sync.WaitGroup

		for i := range locks {
			group.Go(func() {
				for range rounds {
					status, err := locker.AcquireLock(t.Context(), fmt.Sprint("lock ", i), time.Minute)
					if err == nil {
						err = locker.ReleaseLock(t.Context(), status)
					}

					if err != nil {
						t.Error(err)
					}
				}
			})
		}

		group.Wait()
	}

	expectTogether := func(when string) {
		t.Helper()
		sent.statements.Store(0)
		sent.locks.Store(0)
		pairs(4)

		if statements, n := sent.statements.Load(), sent.locks.Load(); n < 2*4*locks || statements > n/2 {
			t.Errorf("%s: %d statements for %d requests", when, statements, n)
		}
	}

	pairs(1) // rows
	expectTogether("before the split")

	// Each of its halves is on another node.
	for range 2 {
		contract.Exec(t, db, `
			SELECT citus_split_shard_by_split_points(s.shardid, ARRAY[((s.shardminvalue::bigint + s.shardmaxvalue::bigint) / 2)::text],
			                                         (SELECT array_agg(n.nodeid ORDER BY n.nodeid) FROM pg_dist_node AS n WHERE n.shouldhaveshards),
			                                         'block_writes')
			  FROM pg_dist_shard AS s
			 WHERE s.shardid = get_shard_id_for_distribution_column('pglocker_split.lock_statuses', 'lock 0')`)
		pairs(1)
		expectTogether("after a split")
	}
}
