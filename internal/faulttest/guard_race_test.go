package faulttest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestGuardRace: writers go on with their token until the guard stops them, while
// others take the lock over the moment that its lease ends. No write is committed
// under a token once a higher one was granted. The same race without the guard, and
// with one that locks less, has such writes, so it is a race.
func TestGuardRace(t *testing.T) {
	levels := []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable}

	for _, level := range levels {
		t.Run(strings.ReplaceAll(level.String(), " ", ""), func(t *testing.T) {
			t.Parallel()

			r := newGuardRace(t, level, func(guard string) string { return guard })
			r.run(t, 20_000, 0)

			if stale := r.stale.Load(); stale != 0 {
				t.Errorf("%d of %d tries committed after a higher token was granted", stale, r.tries.Load())
			}

			if back := r.stepsBack(t); back != 0 {
				t.Errorf("the token of the resource went down %d times", back)
			}

			if r.grants.Load() < 500 || r.refused.Load() < 500 || r.committed.Load() < 500 {
				t.Error("that was no race")
			}
		})
	}

	for _, level := range levels {
		t.Run("Control/NoGuard/"+strings.ReplaceAll(level.String(), " ", ""), func(t *testing.T) {
			t.Parallel()

			r := newGuardRace(t, level, func(string) string { return "" })
			r.run(t, 20_000, 10)

			if r.stale.Load() == 0 {
				t.Error("no stale commit without the guard: this test can't fail")
			}
		})
	}

	t.Run("Control/KeyShare", func(t *testing.T) {
		t.Parallel()

		r := newGuardRace(t, sql.LevelReadCommitted, func(guard string) string {
			weak := strings.Replace(guard, "FOR SHARE", "FOR KEY SHARE", 1)
			if weak == guard {
				t.Fatalf("the guard doesn't lock FOR SHARE: %s", guard)
			}

			return weak
		})
		r.run(t, 20_000, 10)

		if r.stale.Load() == 0 {
			t.Error("no stale commit with a guard that locks too little")
		}
	})
}

const (
	racedLocks = 3
	// racersPerLock are the holder and those who want to be next.
	racersPerLock = 3
)

// guardRace is one such race.
type guardRace struct {
	db     *sql.DB
	locker *pglocker.Locker
	level  sql.IsolationLevel
	// guard is the statement under test; "" means none.
	guard string

	// granted is the highest token of each lock whose grant was acknowledged.
	granted [racedLocks]atomic.Int64

	tries, grants, committed, refused, serialization, stale atomic.Int64
}

func newGuardRace(t *testing.T, level sql.IsolationLevel, change func(guard string) string) *guardRace {
	t.Helper()

	url := contract.NewDatabase(t)
	r := &guardRace{db: contract.Open(t, "pgx", url), level: level, locker: contract.NewLocker(t, "pgx", url)}
	r.db.SetMaxIdleConns(racedLocks * racersPerLock)

	// What the lock protects, and what was written to it, in the order of the commits.
	contract.Exec(t, r.db, `CREATE TABLE resource (lock int PRIMARY KEY, token bigint, writes bigint NOT NULL)`)
	contract.Exec(t, r.db, `CREATE TABLE audit (lock int, write bigint, token bigint, PRIMARY KEY (lock, write))`)
	contract.Exec(t, r.db, `INSERT INTO resource SELECT n, 0, 0 FROM generate_series(0, $1::int - 1) AS n`, racedLocks)

	lock, err := r.locker.TryLock(t.Context(), "any", time.Minute)
	if err != nil {
		t.Fatal(err)
	}

	guard, _ := lock.GuardSQL()
	r.guard = change(guard)

	if err := lock.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}

	return r
}

// run ends after that many tries, or stale commits if that isn't 0. On a machine that is too busy for so many it ends
// after five minutes.
func (r *guardRace) run(t *testing.T, tries, stale int64) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()

	over := func() bool {
		return ctx.Err() != nil || t.Failed() || r.tries.Load() >= tries || stale > 0 && r.stale.Load() >= stale
	}

	var racers sync.WaitGroup

	for lock := range racedLocks {
		for range racersPerLock {
			racers.Go(func() {
				for !over() {
					if err := r.tenure(ctx, lock, over); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
			})
		}
	}

	racers.Wait()

	t.Logf("%d tries: %d committed, %d refused by the guard, %d serialization failures, %d stale; %d grants",
		r.tries.Load(), r.committed.Load(), r.refused.Load(), r.serialization.Load(), r.stale.Load(), r.grants.Load())
}

// tenure is one racer's: it takes the lock once its lease is over, and writes until
// the guard stops it, or, without one, for a while.
func (r *guardRace) tenure(ctx context.Context, lock int, over func() bool) error {
	id := fmt.Sprintf("raced-%d", lock)
	// The lease ends around the second or third write.
	ttl := time.Millisecond + rand.N(2*time.Millisecond)

	var status *pglocker.LockStatus

	for status == nil {
		var err error

		status, err = r.locker.AcquireLock(ctx, id, ttl)
		if err != nil && !errors.Is(err, pglocker.ErrAlreadyLocked) {
			return err
		}

		if over() {
			return nil
		}
	}

	r.grants.Add(1)

	for {
		highest := r.granted[lock].Load()
		if highest >= status.Generation || r.granted[lock].CompareAndSwap(highest, status.Generation) {
			break
		}
	}

	for range 6 {
		again, err := r.write(ctx, lock, status)
		if err != nil || !again || over() {
			return err
		}
	}

	return nil
}

// write is one try. again is false once the guard has said that the lock is lost.
func (r *guardRace) write(ctx context.Context, lock int, status *pglocker.LockStatus) (again bool, err error) {
	r.tries.Add(1)

	tx, err := r.db.BeginTx(ctx, &sql.TxOptions{Isolation: r.level})
	if err != nil {
		return false, err
	}

	defer func() { _ = tx.Rollback() }()

	if r.guard != "" {
		var generation int64

		err := tx.QueryRowContext(ctx, r.guard, status.LockID, status.Generation).Scan(&generation)
		if errors.Is(err, sql.ErrNoRows) {
			r.refused.Add(1)

			return false, nil
		}

		if err != nil {
			return r.failed(err)
		}
	}

	_, err = tx.ExecContext(ctx, `WITH written AS (
			UPDATE resource SET token = $2::bigint, writes = writes + 1 WHERE lock = $1::int RETURNING lock, writes)
		INSERT INTO audit SELECT lock, writes, $2::bigint FROM written`, lock, status.Generation)
	if err != nil {
		return r.failed(err)
	}

	// Whoever was granted the lock by now was so before the commit.
	late := r.granted[lock].Load() > status.Generation

	if err := tx.Commit(); err != nil {
		return r.failed(err)
	}

	r.committed.Add(1)

	if late {
		r.stale.Add(1)
	}

	return true, nil
}

// failed counts what the stricter levels refuse for the sake of others.
func (r *guardRace) failed(err error) (again bool, _ error) {
	var server interface{ SQLState() string }
	if errors.As(err, &server) && server.SQLState() == "40001" {
		r.serialization.Add(1)

		return true, nil
	}

	return false, err
}

// stepsBack is how often a write was committed after one with a higher token.
func (r *guardRace) stepsBack(t *testing.T) int {
	t.Helper()

	return contract.Query[int](t, r.db, `SELECT count(*) FROM (
		SELECT token < lag(token) OVER (PARTITION BY lock ORDER BY write) AS back FROM audit) AS a WHERE back`)
}
