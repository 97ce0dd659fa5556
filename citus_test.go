package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// citusURL is the database of a Citus cluster, on its coordinator. Tests make and drop schemas there.
func citusURL(tb testing.TB) string {
	tb.Helper()

	url := os.Getenv("CITUS_DATABASE_URL")
	if url == "" {
		tb.Skip("CITUS_DATABASE_URL is not set")
	}

	return url
}

// TestContractCitus: the contract holds on tables that Citus spreads over several servers. No Config says so.
func TestContractCitus(t *testing.T) {
	t.Parallel()

	coordinator := citusURL(t)

	for _, setup := range []contract.Setup{
		{Name: "pgx", Driver: "pgx", Scheme: "pglocker_pgx"},
		{Name: "postgres", Driver: "postgres", Scheme: "pglocker_pq"},
		{Name: "own table", Driver: "pgx", Scheme: "pglocker_own", Columns: contract.ThreeColumns},
		{Name: "pgxpool", Driver: "pgx", Pool: true, Scheme: "pglocker_pool"},
		{Name: "through a worker", Driver: "pgx", Scheme: "pglocker_worker", Via: throughWorker},
	} {
		setup.Distributed = true

		contract.Run(t, setup, func(tb testing.TB) string {
			tb.Helper()

			db := contract.Open(tb, "pgx", coordinator)
			contract.Exec(tb, db, "DROP SCHEMA IF EXISTS "+setup.Scheme+" CASCADE")

			return coordinator
		})
	}
}

// throughWorker leads to a worker of the cluster.
func throughWorker(tb testing.TB, coordinator string) string {
	tb.Helper()

	return ofPort(tb, coordinator, contract.Query[int](tb, contract.Open(tb, "pgx", coordinator), `SELECT nodeport FROM pg_dist_node
		WHERE groupid > 0 AND isactive ORDER BY nodeid LIMIT 1`))
}

// ofPort leads to the node that listens there.
func ofPort(tb testing.TB, coordinator string, port int) string {
	tb.Helper()

	u, err := url.Parse(coordinator)
	contract.Must(tb, err)

	u.Host = contract.Query[string](tb, contract.Open(tb, "pgx", coordinator),
		"SELECT nodename || ':' || nodeport FROM pg_dist_node WHERE nodeport = $1", port)

	return u.String()
}

// newCitusTable makes a table that is spread over the nodes.
func newCitusTable(t *testing.T, scheme string) (*sql.DB, *pglocker.Config) {
	t.Helper()

	db := contract.Open(t, "pgx", citusURL(t))
	cfg := &pglocker.Config{Scheme: scheme, Distributed: true}

	contract.Exec(t, db, "DROP SCHEMA IF EXISTS "+scheme+" CASCADE")
	contract.Must(t, pglocker.MigrateDB(t.Context(), db, cfg))

	return db, cfg
}

func newCitusLocker(t *testing.T, db *sql.DB, cfg *pglocker.Config) *pglocker.Locker {
	t.Helper()

	locker, err := pglocker.New(db, cfg)
	contract.Must(t, err)
	t.Cleanup(func() { contract.CloseLocker(t, locker) })

	return locker
}

// sqlMove moves the shard of the lock $2 of the table $1 to a node that doesn't have it.
const sqlMove = `
SELECT citus_move_shard_placement(s.shardid, s.nodename, s.nodeport, n.nodename, n.nodeport, 'force_logical')
  FROM citus_shards AS s,
       LATERAL (SELECT * FROM pg_dist_node AS n
                 WHERE n.shouldhaveshards AND n.nodeport <> s.nodeport
                 ORDER BY n.nodeport LIMIT 1) AS n
 WHERE s.shardid = get_shard_id_for_distribution_column($1, $2::text)`

// underTraffic has two Lockers take four locks, alone and two at a time, until they have been granted each a few times
// after what disturb does. No lock may be lost, held twice, or granted a token that is no larger.
func underTraffic(t *testing.T, scheme string, disturb func(db *sql.DB, cfg *pglocker.Config)) {
	t.Helper()

	const (
		ids, clients, grants = 4, 4, 3
		forever              = 10 * time.Minute
	)

	db, cfg := newCitusTable(t, scheme)
	lockers := []*pglocker.Locker{newCitusLocker(t, db, cfg), newCitusLocker(t, db, cfg)}

	held, err := lockers[0].TryLock(t.Context(), "held", forever, pglocker.WithRelockInterval(100*time.Millisecond))
	contract.Must(t, err)

	var (
		group     sync.WaitGroup
		disturbed atomic.Bool
		after     atomic.Int64
		inside    [ids]atomic.Int64
		last      [ids]atomic.Int64
	)

	enter := func(id int, token int64) {
		if inside[id].Add(1) != 1 || last[id].Swap(token) >= token {
			t.Errorf("lock %d is held twice, or its token did not grow: %d", id, token)
		}
	}

	name := func(id int) string { return fmt.Sprint("lock ", id) }

	for id := range ids {
		next := (id + 1) % ids

		for i := range clients {
			one := func(ctx context.Context) error {
				lock, _ := pglocker.FromContext(ctx)
				enter(id, lock.Token())
				inside[id].Add(-1)

				return nil
			}
			both := []string{name(id), name(next)}
			two := func() error {
				multi, err := lockers[i%2].LockAll(t.Context(), both, forever)
				if err != nil {
					return err
				}

				enter(id, multi.Tokens()[both[0]])
				enter(next, multi.Tokens()[both[1]])
				inside[id].Add(-1)
				inside[next].Add(-1)

				return multi.Unlock(t.Context())
			}

			group.Go(func() {
				for n := 0; n < grants && t.Context().Err() == nil; {
					var err error
					if i == 0 {
						err = two()
					} else {
						err = lockers[i%2].Do(t.Context(), name(id), forever, time.Minute, one, pglocker.WithWait(forever))
					}

					switch {
					case errors.Is(err, pglocker.ErrLockLost), errors.Is(err, pglocker.ErrAlreadyLocked):
						t.Error(err)
					case err == nil && disturbed.Load():
						after.Add(1)

						n++
					}
				}
			})
		}
	}

	disturb(db, cfg)

	before := held.Status().ExpiresAt
	contract.Await(t, "the lock is renewed on its node", func() bool { return held.Status().ExpiresAt.After(before) })

	disturbed.Store(true)
	group.Wait()

	if err := held.Context().Err(); err != nil || after.Load() != ids*clients*grants {
		t.Errorf("the holder's context: %v, %d grants after the disturbance", context.Cause(held.Context()), after.Load())
	}

	contract.Must(t, held.Unlock(t.Context()))
}

// TestCitusShardMoved: shards move under traffic, there and back. Not beside other tests: Citus distributes no table while
// shards of its group move.
func TestCitusShardMoved(t *testing.T) {
	underTraffic(t, "pglocker_moved", func(db *sql.DB, cfg *pglocker.Config) {
		for range 2 {
			for _, id := range []string{"held", "lock 0", "lock 1"} {
				contract.Exec(t, db, sqlMove, cfg.Scheme+".lock_statuses", id)
			}
		}
	})
}

// TestCitusWorkerKilled: a worker crashes under traffic, and recovers. The role must be a superuser. Not beside other
// tests, whose statements would fail.
func TestCitusWorkerKilled(t *testing.T) {
	worker := throughWorker(t, citusURL(t))

	underTraffic(t, "pglocker_killed", func(*sql.DB, *pglocker.Config) {
		for range 2 {
			crash(t, worker)
		}
	})
}

// crash makes a server crash, and waits until it has recovered.
func crash(t *testing.T, url string) {
	t.Helper()

	db := contract.Open(t, "pgx", url)
	witness, err := db.Conn(t.Context())
	contract.Must(t, err)

	// A backend that is killed takes all others with it, and the server recovers by its log.
	_, err = db.ExecContext(t.Context(), "COPY (SELECT) TO PROGRAM 'kill -9 $PPID'")
	if err == nil {
		t.Fatal("the worker let its backend be killed")
	}

	if err := witness.PingContext(t.Context()); err == nil {
		t.Error("the worker has not crashed")
	}

	_ = witness.Close() // it is broken
	contract.Await(t, "the worker recovers", func() bool { return db.PingContext(t.Context()) == nil })
}

// TestCitusFloor: a token is above the floor of the timeline of the node that has the row. A worker has to have
// been promoted, or it shows nothing.
func TestCitusFloor(t *testing.T) {
	t.Parallel()

	db, cfg := newCitusTable(t, "pglocker_floor")
	locker := newCitusLocker(t, db, cfg)

	// Before the first one, a server may show the timeline before the promotion.
	contract.Exec(t, db, "SELECT run_command_on_workers('CHECKPOINT')")

	if contract.Query[int64](t, db, `SELECT max(result::bigint)
		FROM run_command_on_workers('SELECT timeline_id FROM pg_control_checkpoint()')`) == 1 {
		t.Skip("no worker has been promoted")
	}

	for n := range 16 {
		id := fmt.Sprint("lock ", n)

		status, err := locker.AcquireLock(t.Context(), id, time.Minute)
		contract.Must(t, err)

		timeline := contract.Query[int64](t, db, `SELECT w.result::bigint
			FROM citus_shards AS s, run_command_on_workers('SELECT timeline_id FROM pg_control_checkpoint()') AS w
			WHERE s.shardid = get_shard_id_for_distribution_column($1, $2::text) AND w.nodeport = s.nodeport`,
			cfg.Scheme+".lock_statuses", id)

		if want := max((timeline-1)<<40+1, 2); status.Generation != want {
			t.Errorf("%s: token %d on timeline %d, want %d", id, status.Generation, timeline, want)
		}
	}
}
