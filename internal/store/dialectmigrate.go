package store

import (
	"context"
	"database/sql"
	"strings"
)

// migratePlainly completes the schema where the server refuses a transaction of a migration: the lock that
// serialises them, how the table is stored, or DDL in a transaction. Each statement is one that may be
// repeated. There are no functions for SQL.
func (s *Store) migratePlainly(ctx context.Context) error {
	for n := 1; ; n++ {
		there, err := s.description(ctx)
		if err != nil {
			return err
		}

		missing, err := s.missing(there)
		if err != nil {
			return err
		}

		if err = s.execAll(ctx, s.plainDDL(missing)); err == nil {
			return nil
		}

		// Another migration may have made it at the same moment.
		if !retriable(err) && !hasState(err, "23505", "42P06", "42P07", "42701", "42710") || n >= sendAttempts || !backOff(ctx, n) {
			return err
		}
	}
}

// plainDDL leaves out how a table is stored.
func (s *Store) plainDDL(statements []string) (plain []string) {
	for _, ddl := range statements {
		if !strings.HasPrefix(ddl, with("ALTER TABLE {table} SET (", "{table}", s.table.String())) {
			plain = append(plain, strings.TrimSuffix(ddl, " USING heap"))
		}
	}

	return plain
}

func (s *Store) execAll(ctx context.Context, statements []string) error {
	conn, done, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer done()

	for _, ddl := range statements {
		if _, err := conn.(*sql.Conn).ExecContext(ctx, ddl, s.arguments(nil)...); err != nil {
			return err
		}
	}

	return nil
}
