package integrations_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/pgtesting"
)

var databases *pgtesting.TestInstance

func TestMain(m *testing.M) {
	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
		MigrateFunc: func(ctx context.Context, _ *url.URL, db *sql.DB) error {
			_, err := db.ExecContext(ctx, `
				CREATE TABLE reports (name TEXT PRIMARY KEY, body TEXT NOT NULL);
				INSERT INTO reports VALUES ('nightly', '')`)

			return errors.Join(err, pglocker.MigrateDB(ctx, db, &pglocker.Config{}))
		},
	})
	code := m.Run()
	databases.MustClose()
	os.Exit(code)
}

// config is one with which a library whose handle gives pglocker no connection of its own
// fails the test: that is a warning.
func config(t *testing.T) *pglocker.Config {
	t.Helper()

	return &pglocker.Config{Logger: slog.New(slog.NewTextHandler(failing{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))}
}

type failing struct{ t *testing.T }

func (f failing) Write(text []byte) (int, error) {
	if !strings.Contains(string(text), "a lock was lost") { // which is to be, see check
		f.t.Errorf("logged: %s", text)
	}

	return len(text), nil
}

// update changes the report in a transaction of one of the libraries, guarded by the lock of
// ctx. It calls during before the commit.
type update func(ctx context.Context, body string, during func()) error

// check takes locks by a locker that one of the libraries gave its handle, and guards its
// transactions.
func check(t *testing.T, url string, locker *pglocker.Locker, update update) {
	t.Helper()

	db := databases.Open(t, url)

	other, err := pglocker.New(db, &pglocker.Config{})
	must(t, err)

	ctx := t.Context()

	// The lock is taken, renewed and released.
	first, err := locker.TryLock(ctx, "report", time.Minute, pglocker.WithRelockInterval(50*time.Millisecond))
	must(t, err)

	granted := first.Status().ExpiresAt
	for deadline := time.Now().Add(10 * time.Second); !first.Status().ExpiresAt.After(granted); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the lock isn't renewed")
		}
	}

	if _, err := other.TryLock(ctx, "report", time.Minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		t.Errorf("another locker gets %v", err)
	}

	must(t, first.Unlock(ctx))

	after, err := other.TryLock(ctx, "report", time.Minute)
	must(t, err)
	must(t, after.Unlock(ctx))

	// A transaction under the lock commits. Until then nobody can be granted the lock, since
	// its row is locked.
	lock, err := locker.TryLock(ctx, "report", time.Minute)
	must(t, err)

	during := false
	err = update(lock.Context(), "all is well", func() {
		during = true

		if rowIsFree(t, db) {
			t.Error("the guard has not locked the row")
		}
	})
	must(t, err)

	if !during || !rowIsFree(t, db) || report(t, db) != "all is well" {
		t.Errorf("after the commit: during %t, row free %t, report %q", during, rowIsFree(t, db), report(t, db))
	}

	// The lock is lost, and its holder doesn't know.
	_, err = db.ExecContext(ctx, "UPDATE pglocker.lock_statuses SET generation = generation + 1")
	must(t, err)

	err = update(lock.Context(), "too late", func() { t.Error("the guard lets a former holder write") })
	if !errors.Is(err, pglocker.ErrLockLost) || report(t, db) != "all is well" {
		t.Errorf("of a former holder: error %v, report %q", err, report(t, db))
	}

	_ = lock.Unlock(ctx) // says that it was lost
	must(t, locker.Close(ctx))
}

// refusesOutside: a library's handle, which begins no transaction, proves nothing.
func refusesOutside(t *testing.T, locker *pglocker.Locker, handle pglocker.Tx) {
	t.Helper()

	err := locker.Do(t.Context(), "outside? of $1", time.Minute, time.Second, func(ctx context.Context) error {
		return pglocker.GuardTx(ctx, handle)
	})
	if !errors.Is(err, pglocker.ErrNoTransaction) {
		t.Errorf("the guard of %T: %v, want ErrNoTransaction", handle, err)
	}
}

// rowIsFree reports whether the lock's row could be updated at once.
func rowIsFree(t *testing.T, db *sql.DB) bool {
	t.Helper()

	var free bool

	err := db.QueryRowContext(t.Context(), `
		SELECT EXISTS (SELECT FROM pglocker.lock_statuses WHERE lock_id = 'report' FOR NO KEY UPDATE SKIP LOCKED)`).Scan(&free)
	must(t, err)

	return free
}

func report(t *testing.T, db *sql.DB) (body string) {
	t.Helper()
	must(t, db.QueryRowContext(t.Context(), "SELECT body FROM reports").Scan(&body))

	return body
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}
