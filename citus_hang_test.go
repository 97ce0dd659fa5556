package pglocker_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// sqlHang stops all processes of a server for so many seconds. It returns at once.
const sqlHang = `
DO $hang$
DECLARE
    pids text := (SELECT string_agg(pid::text, ' ') FROM pg_stat_activity)
              || ' ' || split_part(pg_read_file('postmaster.pid'), E'\n', 1);
BEGIN
    EXECUTE format('COPY (SELECT) TO PROGRAM %%L',
        format('(sleep 0.1; kill -STOP %%1$s; sleep %d; kill -CONT %%1$s) >/dev/null 2>&1 </dev/null &', pids));
END $hang$`

// TestCitusWorkerHangs: a worker that answers nothing, and doesn't break its connections either, costs no lock of
// another worker, and nobody waits for it there. Its own locks are lost when their terms are over, and those that
// outlast it are kept. The role must be a superuser. Not beside other tests, whose statements would hang.
func TestCitusWorkerHangs(t *testing.T) {
	const (
		locks = 128
		hangs = 9 * time.Second
		ttl   = 6 * time.Second
		long  = time.Minute
	)

	db, cfg := newCitusTable(t, "pglocker_hangs")
	locker := newCitusLocker(t, db, cfg)
	worker := throughWorker(t, citusURL(t))

	port := func(id string) int {
		return contract.Query[int](t, db, `SELECT nodeport FROM citus_shards
			WHERE shardid = get_shard_id_for_distribution_column($1, $2::text)`, cfg.Scheme+".lock_statuses", id)
	}
	hung := contract.Query[int](t, db, `SELECT nodeport FROM pg_dist_node WHERE groupid > 0 AND isactive ORDER BY nodeid LIMIT 1`)

	take := func(id string, ttl time.Duration) *pglocker.Lock {
		lock, err := locker.TryLock(t.Context(), id, ttl)
		contract.Must(t, err)

		return lock
	}

	var there, elsewhere, lasting []*pglocker.Lock

	for n := range locks {
		id := fmt.Sprint("lock ", n)

		switch on := port(id); {
		case on != hung:
			elsewhere = append(elsewhere, take(id, ttl))
		case n%2 == 0:
			there = append(there, take(id, ttl))
		default:
			lasting = append(lasting, take(id, long))
		}
	}

	contract.Exec(t, contract.Open(t, "pgx", worker), fmt.Sprintf(sqlHang, int(hangs/time.Second)))
	time.Sleep(hangs)

	for _, lock := range elsewhere {
		if err := lock.Context().Err(); err != nil {
			t.Errorf("a lock of another worker: %v", context.Cause(lock.Context()))
		} else if left := time.Until(lock.Status().ExpiresAt); left < ttl/4 {
			t.Errorf("a lock of another worker is renewed late: %s left", left)
		}
	}

	kept := 0

	for _, lock := range there {
		if lock.Context().Err() == nil {
			kept++
		}
	}

	if kept > 0 {
		t.Errorf("%d of %d locks of the worker outlasted their leases", kept, len(there))
	}

	for _, lock := range append(elsewhere, lasting...) {
		if err := lock.Unlock(t.Context()); err != nil {
			t.Error(err)
		}
	}
}
