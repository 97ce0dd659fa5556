package contract

import (
	"database/sql"
	"slices"
	"testing"

	"github.com/ismurov/pglocker"
)

// MakeTable makes the default table: of these columns, or as MigrateDB does where there are none.
func MakeTable(t *testing.T, db *sql.DB, columns string) {
	t.Helper()

	if columns == "" {
		Must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))

		return
	}

	Exec(t, db, "CREATE SCHEMA pglocker")
	Exec(t, db, "CREATE TABLE pglocker.lock_statuses ("+columns+")")
}

// LockRows locks the rows of the locks whose ids are like that, as somebody would who isn't
// pglocker, until its transaction or the test ends.
func LockRows(t *testing.T, db *sql.DB, like string) *sql.Tx {
	t.Helper()

	tx, err := db.BeginTx(t.Context(), nil)
	Must(t, err)
	t.Cleanup(func() { _ = tx.Rollback() }) // mostly it has ended

	_, err = tx.ExecContext(t.Context(), "SELECT FROM pglocker.lock_statuses WHERE lock_id LIKE $1 FOR UPDATE", like)
	Must(t, err)

	return tx
}

// RowWaits is how many statements on the database wait for somebody's lock, of a row mostly.
func RowWaits(t *testing.T, db *sql.DB) int {
	t.Helper()

	return Query[int](t, db, `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND wait_event_type = 'Lock'`)
}

// Backends counts the connections of a database that the server shows under a name.
func Backends(t *testing.T, db *sql.DB, name string) int {
	t.Helper()

	return Query[int](t, db, `SELECT count(*) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = $1`, name)
}

// describe lists what the catalogs say of a table: columns in their order,
// constraints, storage parameters, and the functions for SQL in its schema. $1 is its quoted name.
const describe = `
SELECT 'column ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' collate ' || coalesce(c.collname, '-')
       || ' not null ' || a.attnotnull || ' default ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '-')
  FROM pg_attribute AS a
  LEFT JOIN pg_collation AS c ON c.oid = a.attcollation
  LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
 WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped
UNION ALL
SELECT 'constraint ' || contype::text || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = $1::text::regclass
UNION ALL
SELECT 'index ' || pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = $1::text::regclass
UNION ALL
SELECT 'storage ' || option FROM pg_class, unnest(reloptions) AS option WHERE oid = $1::text::regclass
UNION ALL
SELECT 'persistence ' || relpersistence::text || ' kind ' || relkind::text FROM pg_class WHERE oid = $1::text::regclass
UNION ALL
SELECT 'function ' || pg_get_functiondef(p.oid) FROM pg_proc AS p
 WHERE p.pronamespace = (SELECT relnamespace FROM pg_class WHERE oid = $1::text::regclass) AND p.prosrc LIKE '%ismurov/pglocker%'`

// Described is what describe says of a table, in order.
func Described(t *testing.T, db *sql.DB, table string) []string {
	t.Helper()

	rows, err := db.QueryContext(t.Context(), describe, table)
	Must(t, err)

	defer func() { Must(t, rows.Close()) }()

	var lines []string

	for rows.Next() {
		var line string

		Must(t, rows.Scan(&line))

		lines = append(lines, line)
	}

	Must(t, rows.Err())
	slices.Sort(lines)

	return lines
}
