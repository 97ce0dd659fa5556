package store_test

import (
	"database/sql"
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
)

// column returns the values of a query's one column.
func column[T any](t *testing.T, db *sql.DB, text string, args ...any) (values []T) {
	t.Helper()

	rows, err := db.QueryContext(t.Context(), text, args...)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}

	defer func() { _ = rows.Close() }() // closed by the last Next, unless the test fails

	for rows.Next() {
		var v T
		if err := rows.Scan(&v); err != nil {
			t.Fatal(err)
		}

		values = append(values, v)
	}

	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}

	return values
}

// unnest has the server read an array literal.
func unnest[T any](t *testing.T, db *sql.DB, kind, literal string) []T {
	t.Helper()

	return column[T](t, db, "SELECT a.v FROM unnest($1::text::"+kind+"[]) WITH ORDINALITY AS a (v, n) ORDER BY a.n", literal)
}

// awaitBlocked returns when a statement on the database waits for a row's lock.
func awaitBlocked(t *testing.T, db *sql.DB) {
	t.Helper()
	contract.Await(t, "a statement waits for a lock", func() bool {
		return contract.Query[int](t, db, `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND wait_event_type = 'Lock'`) > 0
	})
}

// lockRow locks the lock's row as a stranger's transaction may, until the end of
// which it is held.
func lockRow(t *testing.T, db *sql.DB, id string) *sql.Tx {
	t.Helper()

	tx, err := db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = tx.Rollback() }) // if the test failed before

	if _, err := tx.ExecContext(t.Context(), "SELECT FROM "+table.String()+" WHERE lock_id = $1 FOR UPDATE", id); err != nil {
		t.Fatal(err)
	}

	return tx
}
