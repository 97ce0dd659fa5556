package lockertest_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/lockertest"
)

// What the examples take for granted.
var (
	db     *sql.DB
	cfg    *pglocker.Config
	locker *pglocker.Locker
)

// report is the job that is tested: it works until its context ends.
func report(ctx context.Context) error {
	<-ctx.Done()

	return context.Cause(ctx)
}

// The job must stop when its lock is lost.
func ExampleLose() {
	_ = func(t *testing.T) {
		err := locker.Do(t.Context(), "report", time.Minute, time.Second, func(ctx context.Context) error {
			lockertest.Lose(t, locker, "report")

			return report(ctx)
		})
		if !errors.Is(err, pglocker.ErrLockLost) {
			t.Error(err)
		}
	}
}

// A holder that was paused wakes up, and another has its lock: the guard must stop its write.
func ExampleTake() {
	_ = func(t *testing.T, lock *pglocker.Lock, write func(ctx context.Context) error) {
		lockertest.Take(t, db, cfg, "report")

		if err := write(lock.Context()); !errors.Is(err, pglocker.ErrLockLost) {
			t.Error("a former holder has written:", err)
		}
	}
}

// The job must stop when the database hangs for longer than its lease.
func ExampleFreeze() {
	_ = func(t *testing.T) {
		server := lockertest.StartServer(t)
		lock := lockOn(t, server.URL())

		thaw := lockertest.Freeze(t, server)
		err := report(lock.Context())
		thaw()

		if !errors.Is(err, pglocker.ErrLockLost) {
			t.Error(err)
		}
	}
}

// lockOn takes the lock in the database of a URL.
func lockOn(t *testing.T, url string) *pglocker.Lock {
	t.Helper()

	db, err := sql.Open("pgx", url)
	must(t, err)
	t.Cleanup(func() { must(t, db.Close()) })

	locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
	must(t, err)
	t.Cleanup(func() { must(t, locker.Close(context.Background())) })

	lock, err := locker.TryLock(t.Context(), "report", 2*time.Second)
	must(t, err)

	return lock
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}
