package contract

import (
	"context"
	"database/sql"
	"testing"

	"github.com/ismurov/pglocker"
)

// NewLocker returns a locker with the defaults and a table of its own, over a handle of its own.
func NewLocker(tb testing.TB, driver, url string) *pglocker.Locker {
	tb.Helper()

	return NewLockerOn(tb, Open(tb, driver, url))
}

// NewLockerOn is NewLocker over a handle that there is.
func NewLockerOn(tb testing.TB, db *sql.DB) *pglocker.Locker {
	tb.Helper()

	locker, err := pglocker.NewWithMigrateDB(tb.Context(), db, &pglocker.Config{})
	Must(tb, err)
	tb.Cleanup(func() { CloseLocker(tb, locker) })

	return locker
}

// NewLockerOver is NewLockerOn for a handle that is closed with the locker.
func NewLockerOver(tb testing.TB, db *sql.DB) *pglocker.Locker {
	tb.Helper()
	tb.Cleanup(func() { Must(tb, db.Close()) })

	return NewLockerOn(tb, db)
}

// WatchedLocker returns a locker with an observer on a table that exists. It is closed when the
// test has ended.
func WatchedLocker(tb testing.TB, db *sql.DB, observer pglocker.Observer) *pglocker.Locker {
	tb.Helper()

	locker, err := pglocker.New(db, &pglocker.Config{Observer: observer})
	Must(tb, err)
	tb.Cleanup(func() { CloseLocker(tb, locker) })

	return locker
}

// CloseLocker waits for every goroutine of the locker. A request whose answer was lost is still
// settled in the background.
func CloseLocker(tb testing.TB, locker *pglocker.Locker) {
	tb.Helper()

	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), within)
	defer cancel()

	if err := locker.Close(ctx); err != nil {
		tb.Error(err)
	}
}
