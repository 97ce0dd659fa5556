package migrations_test

import (
	"context"
	"database/sql"
	"os"
	"slices"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/ismurov/pglocker/pgtesting"
)

var databases *pgtesting.TestInstance

func TestMain(m *testing.M) {
	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
	})
	code := m.Run()
	databases.MustClose()
	os.Exit(code)
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}

// column returns the rows of a query of one text column.
func column(t *testing.T, db *sql.DB, query string) (all []string) {
	t.Helper()

	rows, err := db.QueryContext(t.Context(), query)
	must(t, err)

	defer func() { must(t, rows.Close()) }()

	for rows.Next() {
		var text string

		must(t, rows.Scan(&text))

		all = append(all, text)
	}

	must(t, rows.Err())

	return all
}

// gate is a table that migrations must read. Nothing reads it until the gate is open.
type gate struct {
	db *sql.DB
	tx *sql.Tx
}

func closedGate(t *testing.T, db *sql.DB) *gate {
	t.Helper()

	_, err := db.ExecContext(t.Context(), "CREATE TABLE gate ()")
	must(t, err)

	tx, err := db.BeginTx(context.WithoutCancel(t.Context()), nil)
	must(t, err)
	_, err = tx.ExecContext(t.Context(), "LOCK TABLE gate")
	must(t, err)

	return &gate{db, tx}
}

// shut ends it, before the handles of the test are closed: that waits for statements.
func (g *gate) shut() { _ = g.tx.Rollback() }

func (g *gate) open(t *testing.T) {
	t.Helper()
	must(t, g.tx.Commit())
}

// waiting says how many migrations wait before the gate.
func (g *gate) waiting(t *testing.T) int {
	t.Helper()

	return len(column(t, g.db, `
		SELECT pid::text FROM pg_locks l JOIN pg_database d ON d.oid = l.database
		 WHERE d.datname = current_database() AND l.relation = 'gate'::regclass AND NOT l.granted`))
}

// contended says whether a process waits for the lock.
func (g *gate) contended(t *testing.T) bool {
	t.Helper()

	return slices.Contains(column(t, g.db, `
		SELECT coalesce(contended_until > clock_timestamp(), false)::text FROM pglocker.lock_statuses WHERE lock_id = 'migrations'`), "true")
}
