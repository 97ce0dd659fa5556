package store

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// Obstacles that keep every role from making a function: how the one begins, and the other.
const (
	otherFunction = "another function has the name "
	managedTable  = "Citus distributes the table"
)

func isForAll(obstacle string) bool {
	return strings.HasPrefix(obstacle, otherFunction) || obstacle == managedTable
}

// sqlInstalled describes the functions $2 of the schema $1, which take arguments of the types $3: their
// source, their settings, what a replacement can't change, and why this role can't make or replace them for the table
// $4. It reads the catalogs alone.
var sqlInstalled = qualified(`
SELECT p.oid IS NOT NULL,
       coalesce(p.prosrc, ''),
       coalesce(pg_catalog.array_to_string(p.proconfig, '; '), ''),
       coalesce(pg_catalog.concat_ws(' ', p.prorettype, pg_catalog.array_to_string(p.proargnames, ','),
                                     pg_catalog.array_to_string(p.proallargtypes, ',')), ''),
       CASE WHEN pg_catalog.strpos(p.prosrc, '` + functionMark + `') {=} 0
            THEN '` + otherFunction + `' {||} pg_catalog.quote_ident(g.name) {||} ' and its arguments'
            WHEN ` + with(sqlManaged, "{name}", "$4") + ` THEN '` + managedTable + `'
            WHEN NOT pg_catalog.pg_has_role(p.proowner, 'USAGE')
            THEN 'the function ' {||} pg_catalog.quote_ident(g.name) {||} ' is '
                 {||} pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(p.proowner)) {||} '''s'
            WHEN NOT pg_catalog.has_schema_privilege(n.oid, 'CREATE') THEN 'the role lacks CREATE on the schema'
            WHEN y.oid IS NULL THEN 'the database lacks the language plpgsql'
            WHEN NOT pg_catalog.has_language_privilege(y.oid, 'USAGE') THEN 'the role lacks USAGE on the language plpgsql'
            ELSE ''
       END
  FROM ROWS FROM (pg_catalog.unnest($2::{text}[]), pg_catalog.unnest($3::{text}[])) WITH ORDINALITY AS g (name, arguments, number)
  LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname {=} ($1::{text})::pg_catalog.name
  LEFT JOIN pg_catalog.pg_proc AS p
    ON p.pronamespace {=} n.oid
   AND p.proname {=} g.name::pg_catalog.name
   AND p.proargtypes {=} g.arguments::pg_catalog.oidvector
  LEFT JOIN pg_catalog.pg_language AS y ON y.lanname {=} 'plpgsql'
 ORDER BY g.number`)

// installed is a row of sqlInstalled.
type installed struct {
	there                       bool
	source, settings, signature string
	obstacle                    string
}

func scanInstalled(from scanner) (f installed, err error) {
	err = from.Scan(&f.there, &f.source, &f.settings, &f.signature, &f.obstacle)

	return f, err
}

// signature is what a replacement can't change of the function, as sqlInstalled has it.
func (f function) signature() string {
	arguments := append(slices.Clip(f.in), f.out...)
	parts := []string{f.returns.oid, strings.Join(valuesOf(arguments, func(a *argument) string { return a.name }), ",")}

	if len(f.out) > 0 {
		parts = append(parts, strings.Join(valuesOf(arguments, func(a *argument) string { return a.of.oid }), ","))
	}

	return strings.Join(parts, " ")
}

// notInstalled is why the functions are not made. Locks do without them.
type notInstalled struct{ cause string }

func (e notInstalled) Error() string { return e.cause }

// dueFunctions returns the statements that make or replace the functions that are missing or older, as
// the rows of sqlInstalled say. There are none if this role can't make one of them.
func dueFunctions(table Table, there []installed) (due []string, err error) {
	return functionDDL(table, there, func(obstacle string) bool { return obstacle != "" })
}

// functionDDL is dueFunctions for a role for which some obstacles count.
func functionDDL(table Table, there []installed, counts func(obstacle string) bool) (ddl []string, err error) {
	for i, f := range functions {
		is := there[i]
		// An administrator may have set more.
		unset := slices.ContainsFunc(f.settings(), func(s [2]string) bool {
			return !slices.Contains(strings.Split(is.settings, "; "), s[0]+"="+s[1])
		})

		if is.there && is.source == f.bodyFor(table) && !unset && is.signature == f.signature() {
			continue
		}

		if counts(is.obstacle) {
			return nil, notInstalled{is.obstacle}
		}

		if is.there && is.signature != f.signature() {
			ddl = append(ddl, f.drop(table))
		}

		ddl = append(ddl, f.create(table))
	}

	return ddl, nil
}

// askInstalled are the arguments of sqlInstalled.
func (s *Store) askInstalled() ([]any, error) {
	names := make([]string, len(functions))

	for i, f := range functions {
		name, ok := f.nameFor(s.table)
		if !ok {
			return nil, notInstalled{fmt.Sprintf("%s has more than %d bytes", quoteIdentifier(name), maxIdentifierBytes)}
		}

		names[i] = name
	}

	return []any{s.table.Schema, names, valuesOf(functions, func(f *function) string {
		return strings.Join(valuesOf(f.in, func(a *argument) string { return a.of.oid }), " ")
	}), s.table.Name}, nil
}

// functionsDue reports whether a function is missing or older, and this role can make it.
func (s *Store) functionsDue(ctx context.Context, log *slog.Logger) (bool, error) {
	args, err := s.askInstalled()

	var (
		there []installed
		due   []string
	)

	if err == nil {
		there, err = read(ctx, s, onPrimary(sqlInstalled), args, scanInstalled)
	}

	if err == nil {
		due, err = dueFunctions(s.table, there)
	}

	return len(due) > 0, s.withoutFunctions(ctx, log, err)
}

// installFunctions makes and replaces functions in a transaction. If the server refuses that for good,
// the transaction goes on without.
func (s *Store) installFunctions(ctx context.Context, tx *sql.Tx, log *slog.Logger) error {
	args, err := s.askInstalled()
	if err != nil {
		return s.withoutFunctions(ctx, log, err)
	}

	if _, err = tx.ExecContext(ctx, "SAVEPOINT pglocker_functions", s.arguments(nil)...); err != nil {
		return err
	}

	if err = s.install(ctx, tx, args); err == nil {
		return nil
	}

	if err = s.withoutFunctions(ctx, log, err); err != nil {
		return err
	}

	_, err = tx.ExecContext(ctx, "ROLLBACK TO SAVEPOINT pglocker_functions", s.arguments(nil)...)

	return err
}

func (s *Store) install(ctx context.Context, tx *sql.Tx, args []any) error {
	there, err := drain(func() (*sql.Rows, error) {
		text, args := s.plain(sqlInstalled, args)

		return tx.QueryContext(ctx, text, args...)
	}, len(functions), scanInstalled)
	if err != nil {
		return err
	}

	due, err := dueFunctions(s.table, there)
	if err != nil {
		return err
	}

	for _, ddl := range due {
		if _, err := tx.ExecContext(ctx, ddl, s.arguments(nil)...); err != nil {
			return err
		}
	}

	return nil
}

// withoutFunctions logs why the functions are not made. It returns an error that may pass, or that may
// be about more than these.
func (s *Store) withoutFunctions(ctx context.Context, log *slog.Logger, err error) error {
	if _, known := err.(notInstalled); !known && (err == nil || ctx.Err() != nil || judge(err, false) != refused || Passing(err)) {
		return err
	}

	if log != nil {
		log.LogAttrs(ctx, slog.LevelInfo, "pglocker: the functions for SQL clients are not installed, or are older ones",
			slog.String("table", s.table.String()), slog.String("cause", err.Error()))
	}

	return nil
}
