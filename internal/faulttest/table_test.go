package faulttest

import (
	"errors"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestInvalidTable: a table that can't keep the promises is refused before it
// grants anything. Without a unique index it would grant a new lock twice.
func TestInvalidTable(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		for what, ddl := range map[string]string{
			"no unique index":       `CREATE TABLE locks (lock_id TEXT, generation BIGINT, expires_at TIMESTAMPTZ)`,
			"unique with another":   `CREATE TABLE locks (lock_id TEXT, generation BIGINT, expires_at TIMESTAMPTZ, UNIQUE (lock_id, generation))`,
			"unique in part":        `CREATE TABLE locks (lock_id TEXT, generation BIGINT, expires_at TIMESTAMPTZ); CREATE UNIQUE INDEX ON locks (lock_id) WHERE generation > 5`,
			"unique at commit":      `CREATE TABLE locks (lock_id TEXT UNIQUE DEFERRABLE INITIALLY DEFERRED, generation BIGINT, expires_at TIMESTAMPTZ)`,
			"generation too small":  `CREATE TABLE locks (lock_id TEXT PRIMARY KEY, generation INT, expires_at TIMESTAMPTZ)`,
			"ids that are padded":   `CREATE TABLE locks (lock_id CHAR(20) PRIMARY KEY, generation BIGINT, expires_at TIMESTAMPTZ)`,
			"ids that are no text":  `CREATE TABLE locks (lock_id UUID PRIMARY KEY, generation BIGINT, expires_at TIMESTAMPTZ)`,
			"a time without a zone": `CREATE TABLE locks (lock_id TEXT PRIMARY KEY, generation BIGINT, expires_at TIMESTAMP)`,
			"no expiry":             `CREATE TABLE locks (lock_id TEXT PRIMARY KEY, generation BIGINT)`,
		} {
			db := contract.Open(t, driver, contract.NewDatabase(t))
			contract.Exec(t, db, ddl)

			locker, err := pglocker.New(db, &pglocker.Config{Scheme: pglocker.PublicScheme, Table: "locks"})
			contract.Must(t, err)

			if _, err := locker.AcquireLock(t.Context(), "a", time.Minute); !errors.Is(err, pglocker.ErrInvalidTable) {
				t.Errorf("%s: %v, want ErrInvalidTable", what, err)
			}
		}
	})
}

// TestMigrateNoTable: what has the table's name and is none stays as it is.
func TestMigrateNoTable(t *testing.T) {
	t.Parallel()

	db := contract.Open(t, "pgx", contract.NewDatabase(t))
	contract.Exec(t, db, "CREATE VIEW locks AS SELECT 1 AS one")

	err := pglocker.MigrateDB(t.Context(), db, &pglocker.Config{Scheme: pglocker.PublicScheme, Table: "locks"})
	if !errors.Is(err, pglocker.ErrInvalidTable) {
		t.Errorf("MigrateDB on a view: %v, want ErrInvalidTable", err)
	}
}
