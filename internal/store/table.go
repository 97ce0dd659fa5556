package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
)

// sqlTable describes the schema $1 and its table $2, in a row for each column, or one row without a
// column. It reads the catalogs alone, which needs no privilege and takes no lock.
var sqlTable = qualified(`
SELECT n.oid IS NOT NULL,
       c.oid IS NOT NULL OR given.of_schema {=} 'pg_temp',
       coalesce(c.relkind {=} 'p', false),
       coalesce(pg_catalog.array_to_string(c.reloptions, ','), ''),
       coalesce(` + sqlUnfit + `, ''),
       coalesce(pg_catalog.row_security_active(c.oid), false),
       coalesce(` + sqlWithoutPolicy + `, ''),
       pg_catalog.substr(pg_catalog.current_setting('DateStyle'), 1, 3) {<>} 'ISO',
       coalesce(a.attname::{text}, ''),
       coalesce(CASE WHEN t.typtype {=} 'd'
                     THEN (SELECT pg_catalog.quote_ident(s.nspname)
                             FROM pg_catalog.pg_namespace AS s
                            WHERE s.oid {=} t.typnamespace)
                          {||} '.' {||} pg_catalog.quote_ident(t.typname)
                     ELSE pg_catalog.format_type(a.atttypid, NULL) END, ''),
       coalesce(pg_catalog.format_type(b.oid, b.typmod), ''),
       coalesce(b.oid::pg_catalog.int8, 0),
       coalesce(b.typmod, '-1'::pg_catalog.int4),
       coalesce(b.not_null, false),
       coalesce(a.attidentity {=} 'a' OR a.attgenerated {<>} '', false),
       EXISTS (SELECT
                 FROM pg_catalog.pg_collation AS o
                WHERE o.oid {=} a.attcollation
                  AND NOT o.collisdeterministic),
       EXISTS (SELECT
                 FROM pg_catalog.pg_index AS i
                 JOIN pg_catalog.pg_opclass AS o ON o.oid {=} i.indclass[0]
                WHERE i.indrelid {=} a.attrelid
                  AND i.indisunique AND i.indisvalid AND i.indimmediate
                  AND i.indpred IS NULL
                  AND i.indnkeyatts {=} 1
                  AND i.indkey[0] {=} a.attnum
                  AND o.opcnamespace {=} 'pg_catalog'::pg_catalog.regnamespace::pg_catalog.oid),
       EXISTS (SELECT
                 FROM pg_catalog.pg_index AS i
                WHERE i.indrelid {=} a.attrelid
                  AND i.indisunique AND i.indpred IS NULL AND i.indexprs IS NULL
                  AND i.indnkeyatts {>} 1
                  AND a.attnum {=} ANY ((i.indkey::pg_catalog.int2[])[0:i.indnkeyatts {-} 1])),
       coalesce(` + sqlClash + `, '')
  FROM (VALUES ($1::{text}, $2::{text})) AS given (of_schema, of_table)
  LEFT JOIN pg_catalog.pg_namespace AS n
    ON n.nspname {=} given.of_schema::pg_catalog.name
  LEFT JOIN pg_catalog.pg_class AS c
    ON c.relnamespace {=} n.oid AND c.relname {=} given.of_table::pg_catalog.name
  LEFT JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid {=} c.oid AND a.attnum {>} 0 AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_type AS t ON t.oid {=} a.atttypid
  LEFT JOIN LATERAL (
       WITH RECURSIVE d AS (
            SELECT a.atttypid AS oid, a.atttypmod AS typmod, a.attnotnull AS not_null
             UNION ALL
            SELECT y.typbasetype,
                   CASE WHEN d.typmod {=} '-1'::pg_catalog.int4 THEN y.typtypmod ELSE d.typmod END,
                   d.not_null OR y.typnotnull
              FROM d JOIN pg_catalog.pg_type AS y ON y.oid {=} d.oid
             WHERE y.typtype {=} 'd')
       SELECT d.*
         FROM d JOIN pg_catalog.pg_type AS y ON y.oid {=} d.oid
        WHERE y.typtype {<>} 'd') AS b ON true`)

// sqlUnfit says why the relation c can't hold locks, whatever its columns. A table that a crash
// empties, or that another session doesn't see, would grant a lock twice.
const sqlUnfit = `
       CASE WHEN c.relkind {=} 'v' THEN 'is a view, and must be a table'
            WHEN c.relkind {=} 'm' THEN 'is a materialized view, and must be a table'
            WHEN c.relkind {=} 'f' THEN 'is a foreign table, and must be a table of this database'
            WHEN c.relkind {<>} ALL (ARRAY['r', 'p']::pg_catalog."char"[]) THEN 'is not a table'
            WHEN c.relpersistence {=} 't' OR given.of_schema {=} 'pg_temp'
            THEN 'is a temporary table, which no other session sees'
            WHEN EXISTS (WITH RECURSIVE part AS (
                              SELECT c.oid AS oid
                               UNION ALL
                              SELECT h.inhrelid
                                FROM part JOIN pg_catalog.pg_inherits AS h ON h.inhparent {=} part.oid)
                         SELECT
                           FROM part JOIN pg_catalog.pg_class AS u ON u.oid {=} part.oid
                          WHERE u.relpersistence {=} 'u')
            THEN 'is UNLOGGED, or a partition is: a crash would empty it (ALTER TABLE ... SET LOGGED mends it)'
            WHEN c.relkind {=} 'r'
                 AND EXISTS (SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhparent {=} c.oid)
            THEN 'has tables that inherit from it, and its unique index does not cover their rows'
            WHEN EXISTS (SELECT
                           FROM pg_catalog.pg_rewrite AS w
                          WHERE w.ev_class {=} c.oid
                            AND w.ev_type {=} ANY (ARRAY['2', '3']::pg_catalog."char"[])
                            AND w.ev_enabled {<>} 'D')
            THEN 'has a rule for INSERT or UPDATE, which changes what these do'
       END`

// sqlWithoutPolicy lists the commands that the role may run on the table c and for which row-level
// security has no policy: SELECT and UPDATE then find no row, without an error.
const sqlWithoutPolicy = `
       CASE WHEN pg_catalog.row_security_active(c.oid) THEN
            (SELECT pg_catalog.string_agg(v.command, ', ')
               FROM (VALUES ('SELECT', 'r'), ('INSERT', 'a'), ('UPDATE', 'w')) AS v (command, letter)
              WHERE pg_catalog.has_any_column_privilege(c.oid, v.command)
                AND NOT EXISTS (SELECT
                                  FROM pg_catalog.pg_policy AS p
                                 WHERE p.polrelid {=} c.oid
                                   AND p.polpermissive
                                   AND p.polcmd {=} ANY (ARRAY['*', v.letter]::pg_catalog."char"[])
                                   AND EXISTS (SELECT
                                                 FROM pg_catalog.unnest(p.polroles) AS r (oid)
                                                WHERE CASE WHEN r.oid {=} 0::pg_catalog.oid THEN true
                                                           ELSE pg_catalog.pg_has_role(r.oid, 'USAGE') END)))
       END`

// sqlClash names a unique index, or an exclusion constraint, that has the column a and not the whole
// id: rows of two locks may violate it.
const sqlClash = `
       (SELECT i.indexrelid::pg_catalog.regclass::{text}
          FROM pg_catalog.pg_index AS i
         CROSS JOIN LATERAL (SELECT (i.indkey::pg_catalog.int2[])[0:i.indnkeyatts {-} 1] AS columns,
                                    EXISTS (SELECT
                                              FROM pg_catalog.pg_collation AS o
                                             WHERE o.oid {=} ANY (i.indcollation::pg_catalog.oid[])
                                               AND NOT o.collisdeterministic) AS coarse) AS k
         CROSS JOIN LATERAL (SELECT coalesce((SELECT x.attnum {=} ANY (k.columns)
                                                FROM pg_catalog.pg_attribute AS x
                                               WHERE x.attrelid {=} i.indrelid
                                                 AND x.attname {=} 'lock_id'
                                                 AND NOT x.attisdropped), false) AND NOT k.coarse AS whole_id) AS w
         WHERE i.indrelid {=} a.attrelid
           AND (i.indisunique OR i.indisexclusion)
           AND NOT w.whole_id
           AND (a.attnum {=} ANY (k.columns)
                OR (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
                   AND EXISTS (SELECT
                                 FROM pg_catalog.pg_depend AS d
                                WHERE d.classid {=} 'pg_catalog.pg_class'::pg_catalog.regclass
                                  AND d.objid {=} i.indexrelid
                                  AND d.refclassid {=} 'pg_catalog.pg_class'::pg_catalog.regclass
                                  AND d.refobjid {=} i.indrelid
                                  AND d.refobjsubid {=} a.attnum))
         LIMIT 1)`

// description is what the catalogs say of the table, as sqlTable returns it.
type description struct {
	schema, table bool
	partitioned   bool
	options       string // storage parameters: name=value,...
	// unfit is why it can't hold locks whatever its columns, or "".
	unfit string
	// secured: row-level security applies to this role.
	secured bool
	// withoutPolicy are commands that row-level security leaves without a row, or "".
	withoutPolicy string
	// datesOdd: see [form].
	datesOdd bool

	columns map[string]column
}

// scan reads one row of sqlTable. All have the same description.
func (d *description) scan(from scanner) (c column, err error) {
	err = from.Scan(&d.schema, &d.table, &d.partitioned, &d.options, &d.unfit, &d.secured, &d.withoutPolicy, &d.datesOdd,
		&c.name, &c.kind, &c.base, &c.oid, &c.typmod, &c.notNull, &c.generated, &c.coarse, &c.unique, &c.key, &c.clash)

	return c, err
}

// with returns the description with its columns. A table that isn't there has a row without one.
func (d *description) with(columns []column) description {
	d.columns = make(map[string]column, len(columns))

	for _, c := range columns {
		if c.name != "" {
			d.columns[c.name] = c
		}
	}

	return *d
}

// description asks the catalogs.
func (s *Store) description(ctx context.Context) (description, error) {
	var d description

	columns, err := read(ctx, s, onPrimary(sqlTable), []any{s.table.Schema, s.table.Name}, d.scan)
	if lacksFeature(err) {
		return s.plainDescription(ctx)
	}

	if err != nil { // a statement that ctx has ended may still write to d
		return description{}, s.lookingFailed(err)
	}

	return d.with(columns), nil
}

func (s *Store) lookingFailed(err error) error {
	return fmt.Errorf("pglocker: looking up the columns of %s: %w", s.table, err)
}

// descriptionIn is description inside a transaction.
func (s *Store) descriptionIn(ctx context.Context, tx *sql.Tx) (description, error) {
	var d description

	columns, err := drain(func() (*sql.Rows, error) {
		text, args := s.plain(onPrimary(sqlTable), []any{s.table.Schema, s.table.Name})

		return tx.QueryContext(ctx, text, args...)
	}, 1, d.scan)

	return d.with(columns), err
}

// form is what the texts depend on, for a server with or without a floor.
func (d description) form(floor bool) form {
	keyed := false
	for _, c := range d.columns {
		keyed = keyed || c.key
	}

	return form{
		full: d.full(), floor: floor, keyed: keyed, expiryKeyed: d.columns["expires_at"].key, parts: d.partitioned, datesOdd: d.datesOdd,
	}
}

// full reports whether the columns owner, acquired_at and contended_until are there.
func (d description) full() bool {
	return !slices.ContainsFunc(addedColumns, func(c addedColumn) bool { return d.columns[c.name].name == "" })
}

// canHoldLocks names the first thing that keeps the table from holding locks. It checks the
// optional columns if they are going to be used: all are there, or migrating adds the others. A
// column that rounds times, or takes two ids for one, would grant a lock to another while its
// holder still believes. One that refuses what a release writes would never let it go.
func (d description) canHoldLocks(table Table, migrating bool) error {
	unfit := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s %s", ErrInvalidTable, table, fmt.Sprintf(format, args...))
	}

	if d.unfit != "" {
		return unfit("%s", d.unfit)
	}

	used := requiredColumns
	for _, c := range addedColumns {
		if _, there := d.columns[c.name]; there && (migrating || d.full()) {
			used = append(slices.Clip(used), c.name)
		}
	}

	for _, name := range used {
		c, there := d.columns[name]
		if !there {
			return unfit("has no column %s", name)
		}

		if needed := c.needs(); needed != "" {
			return unfit("has the column %s of type %s: it must be %s", name, c.described(), needed)
		}

		if c.clash != "" {
			return unfit("has the unique index %s on %s: rows of different locks may violate it", c.clash, name)
		}
	}

	if !d.columns["lock_id"].unique {
		return unfit("has no primary key or unique index on lock_id alone")
	}

	return nil
}

// usable returns why this role can't use the table as it is, or nil.
func (s *Store) usable(d description) error {
	if !d.table {
		return s.tableNotFound()
	}

	if err := d.canHoldLocks(s.table, false); err != nil {
		return err
	}

	if d.withoutPolicy != "" {
		return fmt.Errorf("%w: row-level security of %s has no policy that lets the role %s", ErrPermissionDenied,
			s.table, d.withoutPolicy)
	}

	return nil
}
