package contract

import (
	"database/sql"
	"testing"
	"time"
)

// Must fails the test at once if there is an error.
func Must(tb testing.TB, err error) {
	tb.Helper()

	if err != nil {
		tb.Fatal(err)
	}
}

// Second is an error without the value that comes with it.
func Second[T any](_ T, err error) error { return err }

// Await returns when the condition holds. It fails the test after 30 seconds.
func Await(tb testing.TB, what string, holds func() bool) {
	tb.Helper()

	deadline := time.Now().Add(within)

	for !holds() {
		if time.Now().After(deadline) {
			tb.Fatalf("in vain for %s: %s", within, what)
		}

		time.Sleep(2 * time.Millisecond)
	}
}

// Receive returns a value of the channel. It fails the test after 30 seconds.
func Receive[T any](tb testing.TB, what string, from <-chan T) T {
	tb.Helper()

	select {
	case v := <-from:
		return v
	case <-time.After(within):
		tb.Fatalf("in vain for %s: %s", within, what)
		panic("unreachable")
	}
}

// Open opens a database. It is closed when the test ends.
func Open(tb testing.TB, driver, url string) *sql.DB {
	tb.Helper()

	db, err := sql.Open(driver, url)
	if err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() {
		if err := db.Close(); err != nil {
			tb.Errorf("closing the database handle: %v", err)
		}
	})

	return db
}

// Exec runs a statement that must succeed. It does nothing without a text.
func Exec(tb testing.TB, db *sql.DB, text string, args ...any) {
	tb.Helper()

	if text == "" {
		return
	}

	if _, err := db.ExecContext(tb.Context(), text, args...); err != nil {
		tb.Fatalf("%s: %v", text, err)
	}
}

func Query[T any](tb testing.TB, db *sql.DB, text string, args ...any) (value T) {
	tb.Helper()

	if err := db.QueryRowContext(tb.Context(), text, args...).Scan(&value); err != nil {
		tb.Fatalf("%s: %v", text, err)
	}

	return value
}

func Now(tb testing.TB, db *sql.DB) time.Time {
	tb.Helper()

	return Query[time.Time](tb, db, "SELECT clock_timestamp()").UTC()
}

// Floor is the least generation of a grant on this server. It reads the timeline in another
// way than the locker does.
func Floor(tb testing.TB, db *sql.DB) int64 {
	tb.Helper()
	Exec(tb, db, "CHECKPOINT")

	timeline := Query[int64](tb, db, "SELECT timeline_id FROM pg_control_checkpoint()")

	return (timeline-1)<<40 + 1
}
