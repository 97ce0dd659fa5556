package migrations_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/lockertest"
)

type up func(ctx context.Context, locker *pglocker.Locker, url string) error

// newLocker is that of another process.
func newLocker(t *testing.T, url string) *pglocker.Locker {
	t.Helper()

	locker, err := pglocker.NewWithMigrateDB(t.Context(), databases.Open(t, url), &pglocker.Config{})
	must(t, err)
	t.Cleanup(func() { _ = locker.Close(context.WithoutCancel(t.Context())) })

	return locker
}

// eventually waits for a condition that no event tells.
func eventually(t *testing.T, what string, met func() bool) {
	t.Helper()

	for deadline := time.Now().Add(time.Minute); !met(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// takesTurns checks that a second process begins no migration while the first runs one, and that both succeed.
func takesTurns(t *testing.T, run up) {
	t.Helper()

	url := databases.NewDatabase(t).String()
	gate := closedGate(t, databases.Open(t, url))
	defer gate.shut()

	results := make(chan error, 2)
	start := func() {
		locker := newLocker(t, url)
		go func() { results <- run(t.Context(), locker, url) }()
	}

	start()
	eventually(t, "the first process is at the gate", func() bool { return gate.waiting(t) == 1 || len(results) > 0 })

	start()
	eventually(t, "the second process waits", func() bool { return gate.contended(t) || gate.waiting(t) > 1 || len(results) > 0 })

	if n := gate.waiting(t); n != 1 || len(results) > 0 {
		t.Errorf("%d processes run a migration, and %d have ended", n, len(results))
	}

	gate.open(t)

	for range 2 {
		must(t, <-results)
	}

	if got := tables(t, gate.db); got != "first second third" {
		t.Errorf("tables: %s", got)
	}
}

// losesTheLock takes the lock away while the second migration runs, and returns which tables were made.
// It calls stopped before the migration can go on.
func losesTheLock(t *testing.T, run up, stopped func()) string {
	t.Helper()

	url := databases.NewDatabase(t).String()
	gate := closedGate(t, databases.Open(t, url))
	defer gate.shut()

	locker := newLocker(t, url)
	result := make(chan error, 1)
	go func() { result <- run(t.Context(), locker, url) }()

	eventually(t, "the second migration is at the gate", func() bool { return gate.waiting(t) == 1 || len(result) > 0 })
	lockertest.Lose(t, locker, "migrations")

	if stopped != nil {
		stopped()
		gate.open(t)
	}

	if err := <-result; !errors.Is(err, pglocker.ErrLockLost) {
		t.Errorf("err = %v, want ErrLockLost", err)
	}

	return tables(t, gate.db)
}

// tables returns the names of the tables that migrations made.
func tables(t *testing.T, db *sql.DB) string {
	t.Helper()

	all := column(t, db, `SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname IN ('first', 'second', 'third')`)
	slices.Sort(all)

	return strings.Join(all, " ")
}
