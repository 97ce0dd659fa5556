package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/race"
)

// fill makes free rows, with ids that end in a number from 1.
func fill(t *testing.T, db *sql.DB, rows int, ago string) {
	t.Helper()
	contract.Exec(t, db, `INSERT INTO pglocker.lock_statuses (lock_id, generation, expires_at)
		SELECT 'lock-' || n, n, clock_timestamp() - $2::interval FROM generate_series(1, $1::int) AS n`, rows, ago)
}

func rowsLeft(t *testing.T, db *sql.DB, like string) int {
	t.Helper()

	return contract.Query[int](t, db, "SELECT count(*) FROM pglocker.lock_statuses WHERE lock_id LIKE $1", like)
}

// TestPruneNeedsDelete: and nothing else, and nothing else needs it. Where policies may hide the watermark, nobody may
// prune, not even the table's owner.
func TestPruneNeedsDelete(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	databaseURL := contract.NewDatabase(t)
	admin := contract.Open(t, "pgx", databaseURL)
	contract.MakeTable(t, admin, "")
	fill(t, admin, 10, "1 hour")

	role := strings.ToLower(fmt.Sprintf("pruner_%d", time.Now().UnixNano()))
	contract.Exec(t, admin, "CREATE ROLE "+role+" LOGIN PASSWORD 'p'")
	t.Cleanup(func() {
		_, _ = admin.ExecContext(context.WithoutCancel(ctx), "DROP OWNED BY "+role)
		_, _ = admin.ExecContext(context.WithoutCancel(ctx), "DROP ROLE "+role)
	})
	contract.Exec(t, admin, "GRANT USAGE ON SCHEMA pglocker TO "+role)
	contract.Exec(t, admin, "GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO "+role)

	u, err := url.Parse(databaseURL)
	contract.Must(t, err)

	u.User = url.UserPassword(role, "p")

	db, err := sql.Open("pgx", u.String())
	contract.Must(t, err)

	locker := newLockerOn(t, db)

	_, err = locker.Prune(ctx, time.Minute)
	if !errors.Is(err, pglocker.ErrPermissionDenied) || !strings.Contains(err.Error(), "GRANT DELETE ON pglocker.lock_statuses TO "+role) {
		t.Errorf("Prune without DELETE: %v", err)
	}

	contract.Exec(t, admin, "GRANT DELETE ON pglocker.lock_statuses TO "+role)

	if removed, err := locker.Prune(ctx, time.Minute); removed != 10 || err != nil {
		t.Errorf("Prune with DELETE: %d, %v", removed, err)
	}

	contract.Exec(t, admin, "REVOKE DELETE ON pglocker.lock_statuses FROM "+role)

	status, err := locker.AcquireLock(ctx, "lock-1", time.Minute)
	contract.Must(t, err)

	if status.Generation <= 10 {
		t.Errorf("token %d, and 10 was pruned", status.Generation)
	}

	contract.Must(t, locker.ForceRelease(ctx, "lock-1", status.Generation, ""))
	contract.Exec(t, admin, "ALTER TABLE pglocker.lock_statuses ENABLE ROW LEVEL SECURITY")

	owner := newLockerOn(t, contract.Open(t, "pgx", databaseURL))
	if _, err := owner.Prune(ctx, time.Minute); !errors.Is(err, pglocker.ErrPermissionDenied) || !strings.Contains(err.Error(), "row-level security") {
		t.Errorf("Prune of a table with policies: %v", err)
	}
}

// TestPrunePassesOver: rows that are locked, or that another table refers to, stay. The others of their batch go.
func TestPrunePassesOver(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		admin := contract.Open(t, driver, contract.NewDatabase(t))
		contract.MakeTable(t, admin, "")

		locker := newLockerOn(t, contract.Open(t, driver, databaseOf(t, admin)))
		contract.Must(t, contract.Second(locker.Prune(t.Context(), 0))) // the first waits for all transactions
		fill(t, admin, 2_500, "1 hour")
		contract.Exec(t, admin, "CREATE TABLE public.jobs (lock_id text REFERENCES pglocker.lock_statuses (lock_id))")
		contract.Exec(t, admin, "INSERT INTO public.jobs VALUES ('lock-7'), ('lock-1700'), ('lock-1701')")

		tx := contract.LockRows(t, admin, "lock-33")

		if removed, err := locker.Prune(t.Context(), time.Minute); removed != 2_496 || err != nil {
			t.Errorf("removed %d rows, %v, want 2496", removed, err)
		}

		contract.Must(t, tx.Rollback())

		if removed, err := locker.Prune(t.Context(), time.Minute); removed != 1 || err != nil {
			t.Errorf("removed %d rows, %v, want the one that was locked", removed, err)
		}

		if left := rowsLeft(t, admin, "lock-%"); left != 3 {
			t.Errorf("%d rows are left, want 3", left)
		}
	})
}

// databaseOf is the URL of the database that a handle is on.
func databaseOf(t *testing.T, db *sql.DB) string {
	t.Helper()

	u, err := url.Parse(contract.NewDatabase(t))
	contract.Must(t, err)

	u.Path = "/" + contract.Query[string](t, db, "SELECT current_database()")

	return u.String()
}

// TestFirstPruneWaits: it names the transaction that it waits for, and goes on when that has ended.
func TestFirstPruneWaits(t *testing.T) {
	t.Parallel()

	databaseURL := contract.NewDatabase(t)
	admin := contract.Open(t, "pgx", databaseURL)
	contract.MakeTable(t, admin, "")
	fill(t, admin, 10, "1 hour")

	tx, err := admin.BeginTx(t.Context(), nil)
	contract.Must(t, err)
	defer func() { _ = tx.Rollback() }()

	var pid int

	contract.Must(t, tx.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid))

	counted := contract.NewCounted(t, databaseURL, nil, 3)
	locker := counted.Locker

	for range 2 { // the second doesn't take the watermark for ready
		ctx, cancel := context.WithCancel(t.Context())
		pruned := make(chan error, 1)
		before := counted.Statements.Load()

		go func() { pruned <- contract.Second(locker.Prune(ctx, time.Minute)) }()

		// Unhindered it sends eight.
		contract.Await(t, "it looks again and again", func() bool { return len(pruned) > 0 || counted.Statements.Load()-before > 16 })
		cancel()

		if err := contract.Receive(t, "Prune returns", pruned); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", pid)) {
			t.Errorf("Prune beside an open transaction: %v, want it to name pid %d", err, pid)
		}
	}

	if left := rowsLeft(t, admin, "lock-%"); left != 10 {
		t.Errorf("%d rows are left, want 10", left)
	}

	contract.Must(t, tx.Rollback())

	if removed, err := locker.Prune(t.Context(), time.Minute); removed != 10 || err != nil {
		t.Errorf("removed %d, %v", removed, err)
	}
}

// TestPruneStallsNobody: while it deletes rows, others take and release those and other locks, none of them 100 ms
// slower than the slowest without it.
func TestPruneStallsNobody(t *testing.T) {
	if race.Enabled || testing.Short() {
		t.Skip("measures time")
	}

	const rows, clients = 30_000, 4

	databaseURL := contract.NewDatabase(t)
	admin := contract.Open(t, "pgx", databaseURL)
	contract.MakeTable(t, admin, "")

	pruner := newLockerOn(t, contract.Open(t, "pgx", databaseURL))
	contract.Must(t, contract.Second(pruner.Prune(t.Context(), 0)))
	fill(t, admin, rows, "1 hour")

	var lockers []*pglocker.Locker
	for range clients {
		lockers = append(lockers, newLockerOn(t, contract.Open(t, "pgx", databaseURL)))
	}

	// traffic takes and releases locks all over the table until done, and returns how long the slowest pair took.
	traffic := func(done <-chan struct{}) (slowest time.Duration, calls int) {
		var (
			mu    sync.Mutex
			group sync.WaitGroup
		)

		for c, locker := range lockers {
			group.Go(func() {
				for i := c; ; i += clients {
					select {
					case <-done:
						return
					default:
					}

					began := time.Now()

					status, err := locker.AcquireLock(t.Context(), fmt.Sprintf("lock-%d", 1+i*37%(rows+rows/10)), time.Minute)
					if err == nil {
						err = locker.ReleaseLock(t.Context(), status)
					}

					if err != nil {
						t.Error(err)

						return
					}

					mu.Lock()
					slowest, calls = max(slowest, time.Since(began)), calls+1
					mu.Unlock()
				}
			})
		}

		group.Wait()

		return slowest, calls
	}

	without := make(chan struct{})
	time.AfterFunc(2*time.Second, func() { close(without) })

	usual, calls := traffic(without)

	var removed int64

	with := make(chan struct{})
	began := time.Now()

	go func() {
		defer close(with)

		var err error

		if removed, err = pruner.Prune(context.WithoutCancel(t.Context()), time.Minute); err != nil {
			t.Error(err)
		}
	}()

	slowest, beside := traffic(with)
	t.Logf("slowest of %d pairs without a prune: %s; of %d beside one that removed %d rows in %s: %s",
		calls, usual, beside, removed, time.Since(began), slowest)

	if slowest > usual+100*time.Millisecond {
		t.Errorf("a pair took %s beside a prune, and %s at most without it", slowest, usual)
	}

	if removed < rows/2 {
		t.Errorf("%d rows were removed", removed)
	}
}

// TestLocksInConstantMemory: 200,000 rows take no more memory than a page of them. They are read by the index, in
// whatever collation.
func TestLocksInConstantMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("makes many rows")
	}

	t.Parallel()

	for _, test := range []struct {
		columns string
		rows    int
	}{
		{"", 200_000},
		{strings.Replace(contract.ThreeColumns, ` COLLATE "C"`, "", 1), 20_000},
	} {
		t.Run(fmt.Sprint(test.rows), func(t *testing.T) {
			t.Parallel()
			testLocksInConstantMemory(t, test.columns, test.rows)
		})
	}
}

func testLocksInConstantMemory(t *testing.T, columns string, rows int) {
	databaseURL := contract.NewDatabase(t)
	admin := contract.Open(t, "pgx", databaseURL)
	contract.MakeTable(t, admin, columns)
	contract.Exec(t, admin, "ALTER TABLE pglocker.lock_statuses SET (autovacuum_enabled = off)")

	locker := newLockerOn(t, contract.Open(t, "pgx", databaseURL))

	for range locker.Locks(t.Context(), pglocker.LocksFilter{}) {
		t.Fatal("an empty table has a row")
	}

	fill(t, admin, rows, "1 hour")

	inUse := func() uint64 {
		var stats runtime.MemStats

		runtime.GC()
		runtime.ReadMemStats(&stats)

		return stats.HeapAlloc
	}

	for _, filter := range []pglocker.LocksFilter{{}, {Held: true}, {Prefix: "lock-1999"}} { // 1999, and 19990 to 19999, and 199900 to 199999
		var (
			before = inUse()
			most   uint64
			count  int
			last   string
		)

		for status, err := range locker.Locks(t.Context(), filter) {
			contract.Must(t, err)

			if status.LockID == last {
				t.Fatalf("%q twice", last)
			}

			last = status.LockID
			if count++; count%(rows/8) == 0 {
				most = max(most, inUse())
			}
		}

		want := map[string]int{"": rows, "lock-1999": 11 + rows/200_000*100}[filter.Prefix]
		if filter.Held {
			want = 0
		}

		if count != want {
			t.Errorf("%+v: %d rows, want %d", filter, count, want)
		}

		// Others may run at the same time.
		if most > before+64<<20 {
			t.Errorf("%+v: %d MB in use, %d before", filter, most>>20, before>>20)
		}

		t.Logf("%+v: %d rows, %d KB in use at most, %d KB before", filter, count, most>>10, before>>10)
	}

	removed, err := locker.Prune(t.Context(), time.Minute)
	if err != nil || removed != int64(rows) {
		t.Errorf("removed %d, %v", removed, err)
	}

	if scans := contract.Query[int](t, admin, "SELECT coalesce(max(seq_scan), 0) FROM pg_stat_user_tables"); scans > 20 {
		t.Errorf("%d scans of the whole table", scans)
	}
}

// TestCrashBehindAWait: a request waits for a row that showed a crashed holder. Meanwhile another was granted the lock
// and released it, so the previous holder is that one.
func TestCrashBehindAWait(t *testing.T) {
	t.Parallel()

	for _, released := range []bool{true, false} {
		t.Run(fmt.Sprintf("released %t", released), func(t *testing.T) {
			t.Parallel()

			databaseURL := contract.NewDatabase(t)
			admin := contract.Open(t, "pgx", databaseURL)
			contract.MakeTable(t, admin, "")

			locker := newLockerOn(t, contract.Open(t, "pgx", databaseURL))
			contract.Must(t, contract.Second(locker.AcquireLock(t.Context(), "a", time.Minute)))
			contract.Exec(t, admin, "UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp()")

			tx := contract.LockRows(t, admin, "a")
			if released {
				_, err := tx.ExecContext(t.Context(), "UPDATE pglocker.lock_statuses SET generation = generation + 2, owner = NULL, acquired_at = NULL")
				contract.Must(t, err)
			}

			locks := make(chan *pglocker.Lock, 1)

			go func() {
				lock, err := locker.TryLock(context.WithoutCancel(t.Context()), "a", time.Minute)
				if err != nil {
					t.Error(err)
				}

				locks <- lock
			}()

			contract.Await(t, "the request waits", func() bool { return contract.RowWaits(t, admin) == 1 })
			contract.Must(t, tx.Commit())

			lock := contract.Receive(t, "the lock is granted", locks)
			if got := lock.PreviousHolderCrashed(); got == released {
				t.Errorf("crashed %t, and the holder before released: %t", got, released)
			}

			contract.Must(t, lock.Unlock(t.Context()))
		})
	}
}

// TestLocksWhileRowsChange: a lock that exists all the time is listed once, whatever happens to others.
func TestLocksWhileRowsChange(t *testing.T) {
	t.Parallel()

	databaseURL := contract.NewDatabase(t)
	admin := contract.Open(t, "pgx", databaseURL)
	contract.MakeTable(t, admin, "")
	fill(t, admin, 3_500, "1 hour")

	locker := newLockerOn(t, contract.Open(t, "pgx", databaseURL))

	var seen []string

	for status, err := range locker.Locks(t.Context(), pglocker.LocksFilter{}) {
		contract.Must(t, err)

		seen = append(seen, status.LockID)

		switch len(seen) {
		case 100: // behind, on and before the loop's place
			contract.Exec(t, admin, "UPDATE pglocker.lock_statuses SET expires_at = clock_timestamp()")
			contract.Exec(t, admin, "DELETE FROM pglocker.lock_statuses WHERE lock_id = 'lock-99'")
			contract.Exec(t, admin, "INSERT INTO pglocker.lock_statuses VALUES ('a new one', 1, clock_timestamp()), ('z new one', 1, clock_timestamp())")
		case 200:
			contract.Must(t, locker.ForceRelease(t.Context(), status.LockID, status.Generation, ""))
		}
	}

	if len(seen) != 3_500 || !slices.IsSorted(seen) || len(slices.Compact(seen)) != len(seen) || seen[len(seen)-1] != "z new one" {
		t.Errorf("%d rows, sorted %t", len(seen), slices.IsSorted(seen))
	}
}
