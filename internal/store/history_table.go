package store

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"strings"
)

// The history is a table beside the locks' and triggers that write to it. It is opt-in: MigrateDB
// knows nothing of it.
//
// A trigger for each row costs nothing where nothing is written: PostgreSQL looks at the columns
// that an UPDATE sets, and at WHEN, before it calls the function. So a renewal, which sets
// expires_at alone, costs no call. A trigger for each statement would write a batch faster, and be
// called for every renewal and for every refused grant.
//
// The function runs with the rights of its owner, so roles that use locks need none on the history,
// and can't forge or delete what is in it. Nobody else may execute it, or put it on a table of
// their own.
const (
	ddlHistory = `CREATE TABLE IF NOT EXISTS {history} (
    id             BIGINT GENERATED ALWAYS AS IDENTITY,
    at             TIMESTAMP WITH TIME ZONE NOT NULL,
    lock_id        pg_catalog.text COLLATE pg_catalog."C" NOT NULL,
    kind           pg_catalog.text NOT NULL,
    token          BIGINT NOT NULL,
    previous_token BIGINT,
    owner          pg_catalog.text,
    expires_at     TIMESTAMP WITH TIME ZONE NOT NULL,
    reason         pg_catalog.text,
    PRIMARY KEY (lock_id, id)
) USING heap`

	ddlHistoryFunction = `CREATE OR REPLACE FUNCTION {history}() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
    AS {body}`

	ddlHistoryRevoke = `REVOKE ALL ON FUNCTION {history}() FROM PUBLIC`

	ddlHistoryDrop = `DROP TRIGGER IF EXISTS {trigger} ON {table}`

	ddlHistoryTrigger = `CREATE TRIGGER {trigger} AFTER {event} ON {table}
    FOR EACH ROW {when}EXECUTE FUNCTION {history}()`
)

// historyTriggers are the triggers. On six columns a tenure is what has an acquired_at. On three,
// the function finds out, as far as a row can tell.
var historyTriggers = []struct{ name, event, when, whenThree string }{
	{"pglocker_history_insert", "INSERT", `NEW.acquired_at IS NOT NULL`, `NEW.expires_at {>} {now}`},
	{
		"pglocker_history_update", "UPDATE OF generation",
		`OLD.generation {<>} NEW.generation AND (OLD.acquired_at IS NOT NULL OR NEW.acquired_at IS NOT NULL)`,
		`OLD.generation {<>} NEW.generation`,
	},
	{"pglocker_history_delete", "DELETE", "", ""},
}

// historyColumns are those that the function and the reader use.
const historyColumns = "id int8, at timestamptz, lock_id text, kind text, token int8, " +
	"previous_token int8, owner text, expires_at timestamptz, reason text"

// sqlHistory describes the history $3 of the table $2 in the schema $1: its columns, the function's
// text, which of the triggers $4 are there, and another table that has one.
var sqlHistory = qualified(`
SELECT h.oid IS NOT NULL,
       coalesce((SELECT pg_catalog.string_agg(a.attname::{text} {||} ' ' {||} y.typname::{text}, ', ' ORDER BY a.attnum)
                   FROM pg_catalog.pg_attribute AS a
                   JOIN pg_catalog.pg_type AS y ON y.oid {=} a.atttypid
                  WHERE a.attrelid {=} h.oid AND h.relkind {=} ANY (ARRAY['r', 'p']::pg_catalog."char"[])
                    AND a.attnum {>} 0 AND NOT a.attisdropped), ''),
       coalesce(p.prosrc, ''),
       (SELECT pg_catalog.count(*)
          FROM pg_catalog.pg_trigger AS t
         WHERE t.tgrelid {=} c.oid AND t.tgfoid {=} p.oid
           AND t.tgname {=} ANY (pg_catalog.string_to_array($4::{text}, ',')::pg_catalog.name[])),
       coalesce((SELECT t.tgrelid::pg_catalog.regclass::{text}
                   FROM pg_catalog.pg_trigger AS t
                  WHERE t.tgfoid {=} p.oid AND t.tgrelid {<>} c.oid
                    AND NOT EXISTS (WITH RECURSIVE part AS (
                                         SELECT c.oid AS oid
                                          UNION ALL
                                         SELECT i.inhrelid
                                           FROM part JOIN pg_catalog.pg_inherits AS i ON i.inhparent {=} part.oid)
                                    SELECT FROM part WHERE part.oid {=} t.tgrelid)
                  LIMIT 1), '')
  FROM (VALUES ($1::{text}, $2::{text}, $3::{text})) AS given (of_schema, of_table, of_history)
  LEFT JOIN pg_catalog.pg_namespace AS n
    ON n.nspname {=} given.of_schema::pg_catalog.name
  LEFT JOIN pg_catalog.pg_class AS c
    ON c.relnamespace {=} n.oid AND c.relname {=} given.of_table::pg_catalog.name
  LEFT JOIN pg_catalog.pg_class AS h
    ON h.relnamespace {=} n.oid AND h.relname {=} given.of_history::pg_catalog.name
  LEFT JOIN pg_catalog.pg_proc AS p
    ON p.pronamespace {=} n.oid AND p.proname {=} given.of_history::pg_catalog.name AND p.pronargs {=} 0`)

// historyDescription is what the catalogs say of a history.
type historyDescription struct {
	there    bool
	columns  string
	body     string
	triggers int
	other    string
}

func (d *historyDescription) scan(from scanner) (_ historyDescription, err error) {
	err = from.Scan(&d.there, &d.columns, &d.body, &d.triggers, &d.other)

	return *d, err
}

// HistoryName is the name of the table's history, in the same schema.
func (t Table) HistoryName() string {
	if t.Name == "lock_statuses" {
		return "lock_history"
	}

	return t.Name + "_history"
}

// history is the qualified name of the history, quoted.
func (t Table) history() string { return Table{Schema: t.Schema, Name: t.HistoryName()}.String() }

// MigrateHistory makes the history of a table that is there, or completes it. Where nothing is
// missing it only reads the catalogs. log is told what it waits for.
func MigrateHistory(ctx context.Context, db *sql.DB, table Table, log *slog.Logger) error {
	if err := validateIdentifier("history table", table.HistoryName()); err != nil {
		return err
	}

	s := New(db, table, nil)
	s.unnamed.Store(true) // each text is sent once

	if err := s.completeHistory(ctx, log); err != nil {
		return fmt.Errorf("pglocker: migrating the history of %s: %w", table, withContext(ctx, s.explain(err)))
	}

	return nil
}

func (s *Store) completeHistory(ctx context.Context, log *slog.Logger) error {
	if err := s.meet(ctx); err != nil {
		return err
	}

	if err := s.acquaint(ctx); err != nil {
		return err
	}

	locks, err := s.description(ctx)
	if err != nil {
		return err
	}

	found, err := s.historyDescription(ctx)
	if err != nil {
		return err
	}

	missing, err := s.missingHistory(locks, found)
	if err != nil || len(missing) == 0 {
		return err
	}

	if err := s.noHistoryOf(ctx); err != nil {
		return err
	}

	if err := s.writable(ctx); err != nil {
		return err
	}

	return s.migrate(ctx, log, s.missingHistoryIn, nil)
}

// historyDescription asks the catalogs.
func (s *Store) historyDescription(ctx context.Context) (d historyDescription, err error) {
	found, err := read(ctx, s, onPrimary(sqlHistory), s.historyNames(), d.scan)
	if err != nil { // a statement that ctx has ended may still write to d
		return historyDescription{}, err
	}

	return found[0], nil
}

// historyNames are the arguments of sqlHistory.
func (s *Store) historyNames() []any {
	names := make([]string, len(historyTriggers))
	for i, t := range historyTriggers {
		names[i] = t.name
	}

	return []any{s.table.Schema, s.table.Name, s.table.HistoryName(), strings.Join(names, ",")}
}

// missingHistoryIn returns what is missing as a migration's transaction sees it.
func (s *Store) missingHistoryIn(ctx context.Context, tx *sql.Tx) ([]string, error) {
	locks, err := s.descriptionIn(ctx, tx)
	if err != nil {
		return nil, err
	}

	var d historyDescription

	found, err := drain(func() (*sql.Rows, error) {
		text, args := s.plain(onPrimary(sqlHistory), s.historyNames())

		return tx.QueryContext(ctx, text, args...)
	}, 1, d.scan)
	if err != nil {
		return nil, err
	}

	return s.missingHistory(locks, found[0])
}

// missingHistory returns the statements that complete the history, in order. A function that is not
// as it should be is made anew with its triggers: the table may have got columns.
func (s *Store) missingHistory(locks description, there historyDescription) ([]string, error) {
	if !locks.table {
		return nil, s.tableNotFound()
	}

	if err := locks.canHoldLocks(s.table, false); err != nil {
		return nil, err
	}

	return s.historyDue(locks.full(), there)
}

// historyDue is missingHistory for a table of six columns, or of three.
func (s *Store) historyDue(full bool, there historyDescription) ([]string, error) {
	switch {
	case there.there && there.columns != historyColumns:
		return nil, fmt.Errorf("%w: %s is no history of locks: its columns are (%s)", ErrInvalidTable, s.table.history(), there.columns)
	case there.other != "":
		return nil, fmt.Errorf("%w: %s is the history of %s", ErrInvalidTable, s.table.history(), there.other)
	case there.there && there.body == s.historyBody(full) && there.triggers == len(historyTriggers):
		return nil, nil
	}

	return s.historyDDL(full, !there.there), nil
}

// historyDDL makes the history. The triggers come last: to put them on the table waits for those
// who write to it.
func (s *Store) historyDDL(full, table bool) (ddl []string) {
	add := func(text string, pairs ...string) {
		ddl = append(ddl, with(text, append(pairs, "{history}", s.table.history(), "{table}", s.table.String())...))
	}

	if table {
		add(ddlHistory)
	}

	add(ddlHistoryFunction, "{body}", quoteLiteral(s.historyBody(full)))
	add(ddlHistoryRevoke)

	for _, t := range historyTriggers {
		when := t.whenThree
		if full {
			when = t.when
		}

		if when != "" {
			when = "WHEN (" + when + ") "
		}

		add(ddlHistoryDrop, "{trigger}", t.name)
		add(ddlHistoryTrigger, "{trigger}", t.name, "{event}", t.event, "{when}", qualified(when))
	}

	return ddl
}
