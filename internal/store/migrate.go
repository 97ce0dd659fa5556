package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// migrationLock serialises migrations of all pglocker tables of a database:
// "pglocker" in ASCII, as a bigint.
const migrationLock = 0x70676c6f636b6572

// The parts of the schema, each with the statement that makes it.
// migrations/0001_lock_statuses.sql is the same for the default names; a test
// holds them together.
const (
	ddlSchema = `CREATE SCHEMA IF NOT EXISTS {schema}`

	ddlTable = `CREATE TABLE IF NOT EXISTS {table} (
    lock_id         pg_catalog.text COLLATE pg_catalog."C" PRIMARY KEY,
    generation      BIGINT NOT NULL,
    expires_at      TIMESTAMP WITH TIME ZONE NOT NULL,
    owner           pg_catalog.text,
    acquired_at     TIMESTAMP WITH TIME ZONE,
    contended_until TIMESTAMP WITH TIME ZONE
) USING heap`

	ddlAddColumn = `ALTER TABLE {table} ADD COLUMN IF NOT EXISTS `
)

const (
	sqlReadOnly      = "SELECT pg_catalog.current_setting('transaction_read_only')"
	sqlMigrationLock = "SELECT pg_catalog.pg_advisory_xact_lock($1::bigint)"
)

var (
	requiredColumns = []string{"lock_id", "generation", "expires_at"}

	addedColumns = []struct{ name, kind string }{
		{"owner", "pg_catalog.text"},
		{"acquired_at", "TIMESTAMP WITH TIME ZONE"},
		{"contended_until", "TIMESTAMP WITH TIME ZONE"},
	}

	// storage keeps updates HOT and the table small: half of each page stays free
	// for new versions of its rows, and autovacuum comes after a fixed number of
	// dead rows rather than a share of the table, and doesn't dawdle.
	storage = []struct{ name, value string }{
		{"fillfactor", "50"},
		{"autovacuum_vacuum_scale_factor", "0"},
		{"autovacuum_vacuum_threshold", "1000"},
		{"autovacuum_analyze_scale_factor", "0"},
		{"autovacuum_analyze_threshold", "10000"},
		{"autovacuum_vacuum_cost_delay", "0"},
	}
)

// sqlPresent lists what there is of the schema $1 and its table $2: 'schema',
// 'table', 'column NAME', 'storage NAME', 'partitioned', 'no table'. It reads the catalogs alone, which
// needs no privilege on what they describe.
var sqlPresent = qualified(`
SELECT 'schema' FROM pg_catalog.pg_namespace WHERE nspname {=} $1::{text}
UNION ALL
SELECT part
  FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_namespace AS n ON n.oid {=} c.relnamespace
 CROSS JOIN LATERAL (
        SELECT 'table'
        UNION ALL
        SELECT 'column ' {||} a.attname
          FROM pg_catalog.pg_attribute AS a
         WHERE a.attrelid {=} c.oid AND a.attnum {>} 0 AND NOT a.attisdropped
        UNION ALL
        SELECT 'storage ' {||} o.option_name
          FROM pg_catalog.pg_options_to_table(c.reloptions) AS o
        UNION ALL
        SELECT 'partitioned' WHERE c.relkind {=} 'p'
        UNION ALL
        SELECT 'no table' WHERE c.relkind {<>} 'r' AND c.relkind {<>} 'p'
       ) AS p (part)
 WHERE n.nspname {=} $1::{text} AND c.relname {=} $2::{text}`)

// Migrate makes the table, or adds what an older one lacks. Where nothing is
// missing it only reads the catalogs.
func Migrate(ctx context.Context, db *sql.DB, table Table) error {
	s := New(db, table, nil)
	s.unnamed.Store(true) // each text is sent once

	if err := s.complete(ctx); err != nil {
		return fmt.Errorf("pglocker: migrating %s: %w", table, withContext(ctx, s.explain(err)))
	}

	return nil
}

func (s *Store) complete(ctx context.Context) error {
	if err := s.meet(ctx); err != nil {
		return err
	}

	missing, err := s.missing(ctx, s.db)
	if err != nil || len(missing) == 0 {
		return err
	}

	if err := s.writable(ctx); err != nil {
		return err
	}

	return s.migrate(ctx)
}

// meet finds out whose connections the handle has, see [Store.native]. It sends nothing.
func (s *Store) meet(ctx context.Context) error {
	conn, err := connect(ctx, s.db)
	if err != nil {
		return err
	}

	defer func() { _ = conn.Close() }() // back to the pool

	return conn.Raw(func(driverConn any) error {
		s.recognize(driverConn)

		return nil
	})
}

// writable fails where transactions are read-only by default, as all are on a
// standby. The migration itself doesn't always: lib/pq begins each transaction
// as READ WRITE, which overrides the default, and is a feature that a standby
// doesn't support rather than a write it refuses.
func (s *Store) writable(ctx context.Context) error {
	settings, err := read(ctx, s, onPrimary(sqlReadOnly), nil,
		func(row scanner) (setting string, err error) {
			err = row.Scan(&setting)

			return setting, err
		})
	if err == nil && settings[0] == "on" {
		err = fmt.Errorf("%w (a standby, or default_transaction_read_only)", ErrReadOnly)
	}

	return err
}

// migrate tries until it has an answer. Where somebody uses the table and
// doesn't let go of it, trying again rather than waiting keeps those who come
// after from queueing behind.
func (s *Store) migrate(ctx context.Context) error {
	for n := 1; ; n++ {
		err := s.migrateOnce(ctx)

		again := retriable(err) || sqlState(err) == codeLockNotAvailable
		if !again || !pause(ctx, n) {
			return err
		}
	}
}

func (s *Store) migrateOnce(ctx context.Context) (err error) {
	tx, err := s.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}

	defer func() {
		if err != nil {
			_ = tx.Rollback() // the first error says more
		}
	}()

	if _, err = tx.ExecContext(ctx, sqlMigrationLock, s.arguments([]any{int64(migrationLock)})...); err != nil {
		return err
	}

	if _, err = tx.ExecContext(ctx, "SET LOCAL lock_timeout = '500ms'", s.arguments(nil)...); err != nil {
		return err
	}

	missing, err := s.missing(ctx, tx)
	if err != nil {
		return err
	}

	for _, ddl := range missing {
		if _, err = tx.ExecContext(ctx, ddl, s.arguments(nil)...); err != nil {
			return err
		}
	}

	return tx.Commit()
}

// missing returns the statements that complete the schema, in order.
func (s *Store) missing(ctx context.Context, db querier) ([]string, error) {
	there, err := s.present(ctx, db)
	if err != nil {
		return nil, err
	}

	replace := strings.NewReplacer("{schema}", quoteIdentifier(s.table.Schema), "{table}", s.table.String()).Replace

	var missing []string

	if !there["schema"] {
		missing = append(missing, replace(ddlSchema))
	}

	if !there["table"] {
		return append(missing, replace(ddlTable), replace(ddlSetStorage(nil))), nil
	}

	if there["no table"] {
		return nil, fmt.Errorf("%w: %s is something else", ErrInvalidTable, s.table)
	}

	for _, name := range requiredColumns {
		if !there["column "+name] {
			return nil, fmt.Errorf("%w: %s exists and has no column %s", ErrInvalidTable, s.table, name)
		}
	}

	for _, c := range addedColumns {
		if !there["column "+c.name] {
			missing = append(missing, replace(ddlAddColumn)+c.name+" "+c.kind)
		}
	}

	if ddl := ddlSetStorage(there); ddl != "" && !there["partitioned"] {
		missing = append(missing, replace(ddl))
	}

	return missing, nil
}

// ddlSetStorage sets the storage parameters that nobody has set; those that
// somebody has stay as they are.
func ddlSetStorage(there map[string]bool) string {
	var set []string

	for _, p := range storage {
		if !there["storage "+p.name] {
			set = append(set, p.name+" = "+p.value)
		}
	}

	if len(set) == 0 {
		return ""
	}

	return "ALTER TABLE {table} SET (" + strings.Join(set, ", ") + ")"
}

// querier is a handle, or a transaction of it.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// present reads what there is of the schema, see sqlPresent.
func (s *Store) present(ctx context.Context, db querier) (map[string]bool, error) {
	rows, err := db.QueryContext(ctx, onPrimary(sqlPresent), s.arguments([]any{s.table.Schema, s.table.Name})...)
	if err != nil {
		return nil, err
	}

	defer func() { _ = rows.Close() }() // closed by the last Next, unless Scan fails

	present := make(map[string]bool)

	for rows.Next() {
		var part string
		if err := rows.Scan(&part); err != nil {
			return nil, err
		}

		present[part] = true
	}

	return present, rows.Err()
}
