package lockertest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/lockertest"
)

func TestMain(m *testing.M) { contract.Main(m, 4) }

// open makes a database, and a Locker on it.
func open(t *testing.T) (*sql.DB, *pglocker.Locker) {
	t.Helper()

	db := contract.Open(t, "pgx", contract.NewDatabase(t))

	locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
	must(t, err)
	t.Cleanup(func() { must(t, locker.Close(context.Background())) })

	return db, locker
}

func TestLose(t *testing.T) {
	t.Parallel()

	db, locker := open(t)

	lock, err := locker.TryLock(t.Context(), "report", time.Minute)
	must(t, err)
	lockertest.Lose(t, locker, "report")

	if lock.Context().Err() == nil || !errors.Is(context.Cause(lock.Context()), pglocker.ErrLockLost) {
		t.Errorf("the context of a lost lock: %v", context.Cause(lock.Context()))
	}

	// Another Locker's.
	other, err := pglocker.New(db, &pglocker.Config{})
	must(t, err)
	t.Cleanup(func() { must(t, other.Close(context.Background())) })

	lock, err = other.TryLock(t.Context(), "report", time.Minute, pglocker.WithRelockInterval(20*time.Millisecond))
	must(t, err)
	lockertest.Lose(t, locker, "report")
	contract.Receive(t, "the loss is seen by a renewal", lock.Context().Done())

	if err := lock.Unlock(t.Context()); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("unlock of a lost lock: %v", err)
	}
}

func TestLoseAnElection(t *testing.T) {
	t.Parallel()

	_, locker := open(t)
	election, err := locker.NewElection("writers", time.Minute)
	must(t, err)

	ctx, cancel := context.WithCancel(t.Context())
	leads, lost := make(chan struct{}), make(chan error)

	campaign := make(chan error)
	go func() {
		campaign <- election.Run(ctx, func(leading context.Context, _ pglocker.Term) error {
			close(leads)
			<-leading.Done()
			lost <- context.Cause(leading)
			cancel()

			return nil
		})
	}()

	contract.Receive(t, "it leads", leads)
	lockertest.Lose(t, locker, pglocker.ReservedPrefix+"election:writers")

	if err := contract.Receive(t, "it is lost", lost); !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("the leader's context: %v", err)
	}

	contract.Receive(t, "it ends", campaign)
}

func TestTake(t *testing.T) {
	t.Parallel()

	db, locker := open(t)
	ctx := t.Context()

	lock, err := locker.TryLock(ctx, "report", time.Hour)
	must(t, err)

	t.Run("from a holder", func(t *testing.T) {
		taken := lockertest.Take(t, db, &pglocker.Config{}, "report")

		if taken.Token() <= lock.Token() || !strings.HasPrefix(taken.Status().Owner, lockertest.Owner+"#") {
			t.Errorf("taken: %+v, from token %d", taken.Status(), lock.Token())
		}

		if err := lock.Context().Err(); err != nil {
			t.Errorf("the old holder was told: %v", err)
		}

		tx, err := db.BeginTx(ctx, nil)
		must(t, err)
		defer tx.Rollback()

		if err := lock.Guard(ctx, tx); !errors.Is(err, pglocker.ErrLockLost) {
			t.Errorf("the guard of the old holder: %v", err)
		}
	})

	// It was released at the end of the test above. A minimum hold is no obstacle.
	must(t, locker.Do(ctx, "report", time.Hour, time.Minute, func(context.Context) error { return nil }, pglocker.WithMinHold(time.Hour)))
	lockertest.Take(t, db, &pglocker.Config{}, "report")

	_, err = locker.TryLock(ctx, "report", time.Hour)
	if held := new(pglocker.HeldError); !errors.As(err, &held) || !strings.HasPrefix(held.Owner, lockertest.Owner) {
		t.Errorf("beside the other holder: %v", err)
	}
}

func TestFreeze(t *testing.T) {
	t.Parallel()

	server := lockertest.StartServer(t)
	lock := lockOn(t, server.URL())

	thaw := lockertest.Freeze(t, server)
	err := report(lock.Context())
	thaw()
	thaw()

	if !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("while the database hangs: %v", err)
	}

	db := contract.Open(t, "pgx", server.URL())
	must(t, db.PingContext(t.Context()))
}

// failing is a test that is to fail.
type failing struct {
	testing.TB
	said string
}

func (f *failing) Helper() {}

func (f *failing) Fatalf(format string, args ...any) {
	f.said = fmt.Sprintf(format, args...)

	runtime.Goexit()
}

func TestFailures(t *testing.T) {
	t.Parallel()

	db, locker := open(t)
	_, err := locker.CreateLock(t.Context(), "free")
	must(t, err)

	for says, fails := range map[string]func(tb testing.TB){
		"it is free":              func(tb testing.TB) { lockertest.Lose(tb, locker, "free") },
		"not found":               func(tb testing.TB) { lockertest.Lose(tb, locker, "unknown") },
		"reserved":                func(tb testing.TB) { lockertest.Take(tb, db, &pglocker.Config{}, "pglocker:election:x") },
		"pglocker: config is nil": func(tb testing.TB) { lockertest.Take(tb, db, nil, "free") },
	} {
		f := &failing{TB: t}
		done := make(chan struct{})

		go func() {
			defer close(done)

			fails(f)
		}()

		<-done

		if !strings.Contains(f.said, says) {
			t.Errorf("said %q, not %q", f.said, says)
		}
	}
}
