package store

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
)

// A distributed table has its rows on the servers of a Citus cluster, by lock_id. Citus refuses triggers on such
// a table, so it has no history. The functions for SQL would run by the clock and the timeline of the server that
// is asked, and not by those of the row's. So it has none.

// sqlManaged reports whether Citus manages the table {name} of the schema n: it has this trigger on each such table.
const sqlManaged = `EXISTS (SELECT
             FROM pg_catalog.pg_class AS c
             JOIN pg_catalog.pg_trigger AS g ON g.tgrelid {=} c.oid
             JOIN pg_catalog.pg_proc AS f ON f.oid {=} g.tgfoid
            WHERE c.relnamespace {=} n.oid
              AND c.relname {=} ({name}::{text})::pg_catalog.name
              AND f.proname {=} 'citus_truncate_trigger')`

var (
	// sqlIsManaged is sqlManaged for the table $2 of the schema $1.
	sqlIsManaged = qualified(`
SELECT ` + with(sqlManaged, "{name}", "$2") + `
  FROM pg_catalog.pg_namespace AS n
 WHERE n.nspname {=} ($1::{text})::pg_catalog.name`)

	sqlHasCitus = qualified(`SELECT EXISTS (SELECT FROM pg_catalog.pg_extension AS e WHERE e.extname {=} 'citus')`)

	// sqlDistribution is how Citus has distributed the table $2 of the schema $1, and by which column. There is no row if
	// it has not.
	sqlDistribution = qualified(`
SELECT p.partmethod::{text}, coalesce(pg_catalog.column_to_column_name(p.logicalrelid, p.partkey), '')
  FROM pg_catalog.pg_dist_partition AS p
  JOIN pg_catalog.pg_class AS c ON c.oid {=} p.logicalrelid
  JOIN pg_catalog.pg_namespace AS n ON n.oid {=} c.relnamespace
 WHERE n.nspname {=} ($1::{text})::pg_catalog.name
   AND c.relname {=} ($2::{text})::pg_catalog.name`)
)

const ddlDistribute = `SELECT pg_catalog.create_distributed_table({name}, 'lock_id')`

// canDistribute returns an error unless the server can.
func (s *Store) canDistribute(ctx context.Context) error {
	has, err := read(ctx, s, onPrimary(sqlHasCitus), nil, scanOne[bool])
	if err == nil && !has[0] {
		err = fmt.Errorf("%w: the database has no extension citus, which distributes tables (CREATE EXTENSION citus)", ErrUnsupportedServer)
	}

	return err
}

// distribute distributes the table, unless it is.
func (s *Store) distribute(ctx context.Context, log *slog.Logger) error {
	due, err := s.distribution(func(text string, args []any) ([][2]string, error) {
		return read(ctx, s, onPrimary(text), args, scanDistribution)
	})
	if err != nil || len(due) == 0 {
		return err
	}

	due, err = s.withoutOwnFunctions(ctx, due)
	if err != nil {
		return err
	}

	err = s.migrate(ctx, log, func(ctx context.Context, tx *sql.Tx) ([]string, error) {
		still, err := s.distribution(func(text string, args []any) ([][2]string, error) {
			text, args = s.plain(onPrimary(text), args)

			return drain(func() (*sql.Rows, error) { return tx.QueryContext(ctx, text, args...) }, 1, scanDistribution)
		})
		if err != nil || len(still) == 0 {
			return nil, err
		}

		return due, nil
	}, nil)

	if sqlState(err) != "" && sqlState(err) != codeInsufficientPriv && !ofTheMoment(err) {
		err = fmt.Errorf("%w: Citus doesn't distribute the table: %w", ErrUnsupportedServer, err)
	}

	return err
}

func scanDistribution(from scanner) (how [2]string, err error) {
	err = from.Scan(&how[0], &how[1])

	return how, err
}

// distribution returns the statement that distributes the table, or none if it is.
func (s *Store) distribution(ask func(text string, args []any) ([][2]string, error)) ([]string, error) {
	found, err := ask(sqlDistribution, []any{s.table.Schema, s.table.Name})

	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return []string{with(ddlDistribute, "{name}", quoteLiteral(s.table.String()))}, nil
	case found[0] != [2]string{"h", "lock_id"}:
		return nil, fmt.Errorf("%w: Citus has %s, but not distributed by lock_id", ErrInvalidTable, s.table)
	}

	return nil, nil
}

// withoutOwnFunctions puts statements in front that drop the functions for SQL.
func (s *Store) withoutOwnFunctions(ctx context.Context, due []string) ([]string, error) {
	args, err := s.askInstalled()
	if err != nil { // the table's name is too long for them
		return due, nil
	}

	there, err := read(ctx, s, onPrimary(sqlInstalled), args, scanInstalled)
	if err != nil {
		return nil, err
	}

	var drops []string

	for i, f := range functions {
		if there[i].there && !strings.HasPrefix(there[i].obstacle, otherFunction) {
			drops = append(drops, f.drop(s.table))
		}
	}

	return append(drops, due...), nil
}

// pendingDistribution returns what distribute would run.
func (s *Store) pendingDistribution(ctx context.Context) ([]string, error) {
	if err := s.canDistribute(ctx); err != nil {
		return nil, err
	}

	due, err := s.distribution(func(text string, args []any) ([][2]string, error) {
		return read(ctx, s, onPrimary(text), args, scanDistribution)
	})
	if err != nil || len(due) == 0 {
		return nil, err
	}

	return s.withoutOwnFunctions(ctx, due)
}

// noHistoryOf returns an error if Citus manages the table: it refuses triggers.
func (s *Store) noHistoryOf(ctx context.Context) error {
	managed, err := read(ctx, s, onPrimary(sqlIsManaged), []any{s.table.Schema, s.table.Name}, scanOne[bool])
	if err == nil && (s.table.Distributed || len(managed) > 0 && managed[0]) {
		err = s.unsupported("there is no history of a table that Citus distributes: it takes no triggers")
	}

	return err
}
