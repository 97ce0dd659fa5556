package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// migrationLock serialises the migrations of a database: "pglocker" in ASCII, as a bigint.
const migrationLock = 0x70676c6f636b6572

// The parts of the schema. migrations/0001_lock_statuses.sql is the same for the default names,
// which a test compares.
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

	addedColumns = []addedColumn{
		{"owner", "pg_catalog.text"},
		{"acquired_at", "TIMESTAMP WITH TIME ZONE"},
		{"contended_until", "TIMESTAMP WITH TIME ZONE"},
	}

	// storage keeps updates HOT and the table small. Half of each page stays free for new versions.
	// Autovacuum comes after a fixed number of dead rows, not a share of the table, and without
	// pauses.
	storage = []struct{ name, value string }{
		{"fillfactor", "50"},
		{"autovacuum_vacuum_scale_factor", "0"},
		{"autovacuum_vacuum_threshold", "1000"},
		{"autovacuum_analyze_scale_factor", "0"},
		{"autovacuum_analyze_threshold", "10000"},
		{"autovacuum_vacuum_cost_delay", "0"},
	}
)

// addedColumn is a column that an older table may lack.
type addedColumn struct{ name, kind string }

// Migrate makes the table and the functions, or adds what an older table lacks. Where nothing is missing it
// only reads the catalogs. log is told what it waits for, and why there are no functions.
func Migrate(ctx context.Context, db *sql.DB, table Table, log *slog.Logger) error {
	s := New(db, table, nil)
	s.unnamed.Store(true) // each text is sent once

	if err := s.complete(ctx, log); err != nil {
		if sqlState(err) == codeInsufficientPriv && !errors.Is(err, ErrPermissionDenied) {
			err = s.denied(ctx, err, true)
		} else {
			err = s.explain(err)
		}

		return fmt.Errorf("pglocker: migrating %s: %w", table, withContext(ctx, err))
	}

	return nil
}

func (s *Store) complete(ctx context.Context, log *slog.Logger) error {
	if err := s.meet(ctx); err != nil {
		return err
	}

	if err := s.acquaint(ctx); err != nil {
		return err
	}

	if s.table.Distributed {
		if err := s.canDistribute(ctx); err != nil {
			return err
		}
	}

	there, err := s.description(ctx)
	if err != nil {
		return err
	}

	missing, err := s.missing(there)
	if err != nil {
		return err
	}

	if s.table.Distributed {
		return s.completeDistributed(ctx, log, missing)
	}

	due, err := s.functionsDue(ctx, log)
	if err != nil || len(missing) == 0 && !due {
		return err
	}

	if err := s.writable(ctx); err != nil {
		if len(missing) == 0 && sqlState(err) == codeReadOnlyTransaction { // a standby of an older table's server
			return s.withoutFunctions(ctx, log, notInstalled{err.Error()})
		}

		return err
	}

	var also alsoFunc
	if due {
		also = func(ctx context.Context, tx *sql.Tx) error { return s.installFunctions(ctx, tx, log) }
	}

	if err = s.migrate(ctx, log, s.missingIn, also); lacksFeature(err) {
		err = s.migratePlainly(ctx)
	}

	return err
}

// completeDistributed is complete without functions, and distributes the table.
func (s *Store) completeDistributed(ctx context.Context, log *slog.Logger, missing []string) error {
	if len(missing) > 0 {
		if err := s.migrate(ctx, log, s.missingIn, nil); err != nil {
			return err
		}
	}

	return s.distribute(ctx, log)
}

// writable fails where transactions are read-only by default, as on a standby. The migration may
// not: lib/pq begins it as READ WRITE, which a standby refuses as a feature that it lacks.
func (s *Store) writable(ctx context.Context) error {
	_, err := read(ctx, s, onPrimary(sqlReadOnly), nil, func(row scanner) (setting string, err error) {
		if err = row.Scan(&setting); err == nil && setting == "on" {
			// This has another connection tried.
			err = &pgconn.PgError{Severity: "ERROR", Code: codeReadOnlyTransaction, Message: "transaction_read_only is on"}
		}

		return setting, err
	})

	return err
}

// migrate tries until it has an answer. missing returns what is to be done, as the transaction sees
// it. Where another transaction has the table locked, it tries again and doesn't wait: others would
// queue behind it.
func (s *Store) migrate(ctx context.Context, log *slog.Logger, missing missingFunc, also alsoFunc) error {
	var moved tries

	w := migrationWait{store: s, log: log, since: time.Now()}

	for n := 1; ; n++ {
		waitsFor, err := s.migrateOnce(ctx, missing, also)
		if err == nil {
			return nil
		}

		blocked := sqlState(err) == codeLockNotAvailable
		if blocked || ctx.Err() != nil {
			w.note(ctx, waitsFor)
		}

		if !(blocked || retriable(err) || s.afresh(err, &moved)) || !backOff(ctx, n) {
			return w.explain(err)
		}
	}
}

// migrateOnce makes one attempt. If that fails, waitsFor is what it waited for, or "".
func (s *Store) migrateOnce(ctx context.Context, missing missingFunc, also alsoFunc) (waitsFor string, err error) {
	conn, done, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	defer done()

	var tx *sql.Tx

	defer func() {
		if err != nil && tx != nil {
			_ = tx.Rollback() // the first error says more
		}

		if elsewhere(err) {
			discard(conn)
		}
	}()

	if tx, err = conn.(*sql.Conn).BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted}); err != nil {
		return "", err
	}

	if _, err = tx.ExecContext(ctx, "SET LOCAL lock_timeout = '500ms'", s.arguments(nil)...); err != nil {
		return "", err
	}

	lock, args := s.plain(sqlMigrationLock, []any{int64(migrationLock)})
	if _, err = tx.ExecContext(ctx, lock, args...); err != nil {
		return otherMigration, err
	}

	ddls, err := missing(ctx, tx)
	if err != nil {
		return "", err
	}

	for _, ddl := range ddls {
		if _, err = tx.ExecContext(ctx, ddl, s.arguments(nil)...); err != nil {
			return tableLock, err
		}
	}

	if also != nil {
		if err = also(ctx, tx); err != nil {
			return "", err
		}
	}

	return "", tx.Commit()
}

// missingFunc returns the statements that a migration runs, in order. alsoFunc is what it does after them.
type (
	missingFunc func(ctx context.Context, tx *sql.Tx) ([]string, error)
	alsoFunc    func(ctx context.Context, tx *sql.Tx) error
)

// missingIn is missing inside a transaction.
func (s *Store) missingIn(ctx context.Context, tx *sql.Tx) ([]string, error) {
	there, err := s.descriptionIn(ctx, tx)
	if err != nil {
		return nil, err
	}

	return s.missing(there)
}

// missing returns the statements that complete the schema, in order.
func (s *Store) missing(there description) ([]string, error) {
	replace := strings.NewReplacer("{schema}", quoteIdentifier(s.table.Schema), "{table}", s.table.String()).Replace

	var missing []string

	if !there.schema {
		missing = append(missing, replace(ddlSchema))
	}

	if !there.table {
		return append(missing, replace(ddlTable), replace(ddlSetStorage(there))), nil
	}

	if err := there.canHoldLocks(s.table, true); err != nil {
		return nil, err
	}

	for _, c := range addedColumns {
		if _, has := there.columns[c.name]; !has {
			missing = append(missing, replace(ddlAddColumn)+c.name+" "+c.kind)
		}
	}

	if ddl := ddlSetStorage(there); ddl != "" && !there.partitioned {
		missing = append(missing, replace(ddl))
	}

	return missing, nil
}

// ddlSetStorage sets the storage parameters that are not set. Others stay as they are.
func ddlSetStorage(there description) string {
	var set []string

	for _, p := range storage {
		if !strings.Contains(","+there.options, ","+p.name+"=") {
			set = append(set, p.name+" = "+p.value)
		}
	}

	if len(set) == 0 {
		return ""
	}

	return "ALTER TABLE {table} SET (" + strings.Join(set, ", ") + ")"
}
