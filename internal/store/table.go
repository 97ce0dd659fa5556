package store

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// sqlTable describes the schema $1 and its table $2. It reads the catalogs alone, which needs
// no privilege on what they describe, and takes no lock. It returns one row for each column of
// the table, or one row without a column. Its columns are the fields of [description], without
// the map, and those of [column].
//
// Everything is qualified, operators too: objects of the same names in other schemas of the
// search_path are not used.
const sqlTable = `
SELECT n.oid IS NOT NULL,
       c.oid IS NOT NULL OR given.of_schema OPERATOR(pg_catalog.=) 'pg_temp',
       coalesce(c.relkind OPERATOR(pg_catalog.=) 'p', false),
       coalesce(pg_catalog.array_to_string(c.reloptions, ','), ''),
       coalesce(` + sqlUnfit + `, ''),
       coalesce(pg_catalog.row_security_active(c.oid), false),
       coalesce(` + sqlWithoutPolicy + `, ''),
       coalesce(a.attname::pg_catalog.text, ''),
       coalesce(CASE WHEN t.typtype OPERATOR(pg_catalog.=) 'd'
                     THEN (SELECT pg_catalog.quote_ident(s.nspname)
                             FROM pg_catalog.pg_namespace AS s
                            WHERE s.oid OPERATOR(pg_catalog.=) t.typnamespace)
                          OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) pg_catalog.quote_ident(t.typname)
                     ELSE pg_catalog.format_type(a.atttypid, NULL) END, ''),
       coalesce(pg_catalog.format_type(b.oid, b.typmod), ''),
       coalesce(b.oid::pg_catalog.int8, 0),
       coalesce(b.typmod, '-1'::pg_catalog.int4),
       coalesce(b.not_null, false),
       coalesce(a.attidentity OPERATOR(pg_catalog.=) 'a' OR a.attgenerated OPERATOR(pg_catalog.<>) '', false),
       EXISTS (SELECT
                 FROM pg_catalog.pg_collation AS o
                WHERE o.oid OPERATOR(pg_catalog.=) a.attcollation
                  AND NOT o.collisdeterministic),
       EXISTS (SELECT
                 FROM pg_catalog.pg_index AS i
                WHERE i.indrelid OPERATOR(pg_catalog.=) a.attrelid
                  AND i.indisunique AND i.indisvalid AND i.indimmediate
                  AND i.indpred IS NULL
                  AND i.indnkeyatts OPERATOR(pg_catalog.=) 1
                  AND i.indkey[0] OPERATOR(pg_catalog.=) a.attnum),
       coalesce(` + sqlClash + `, '')
  FROM (VALUES ($1::pg_catalog.text, $2::pg_catalog.text)) AS given (of_schema, of_table)
  LEFT JOIN pg_catalog.pg_namespace AS n
    ON n.nspname OPERATOR(pg_catalog.=) given.of_schema::pg_catalog.name
  LEFT JOIN pg_catalog.pg_class AS c
    ON c.relnamespace OPERATOR(pg_catalog.=) n.oid AND c.relname OPERATOR(pg_catalog.=) given.of_table::pg_catalog.name
  LEFT JOIN pg_catalog.pg_attribute AS a
    ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
  LEFT JOIN pg_catalog.pg_type AS t ON t.oid OPERATOR(pg_catalog.=) a.atttypid
  LEFT JOIN LATERAL (
       WITH RECURSIVE d AS (
            SELECT a.atttypid AS oid, a.atttypmod AS typmod, a.attnotnull AS not_null
             UNION ALL
            SELECT y.typbasetype,
                   CASE WHEN d.typmod OPERATOR(pg_catalog.=) '-1'::pg_catalog.int4 THEN y.typtypmod ELSE d.typmod END,
                   d.not_null OR y.typnotnull
              FROM d JOIN pg_catalog.pg_type AS y ON y.oid OPERATOR(pg_catalog.=) d.oid
             WHERE y.typtype OPERATOR(pg_catalog.=) 'd')
       SELECT d.*
         FROM d JOIN pg_catalog.pg_type AS y ON y.oid OPERATOR(pg_catalog.=) d.oid
        WHERE y.typtype OPERATOR(pg_catalog.<>) 'd') AS b ON true`

// sqlUnfit says why no lock may be kept in the relation c, whatever its columns. What a crash
// empties, or another session doesn't see, would grant a lock twice.
const sqlUnfit = `
       CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'v' THEN 'is a view, and must be a table'
            WHEN c.relkind OPERATOR(pg_catalog.=) 'm' THEN 'is a materialized view, and must be a table'
            WHEN c.relkind OPERATOR(pg_catalog.=) 'f' THEN 'is a foreign table, and must be a table of this database'
            WHEN c.relkind OPERATOR(pg_catalog.<>) ALL (ARRAY['r', 'p']::pg_catalog."char"[]) THEN 'is not a table'
            WHEN c.relpersistence OPERATOR(pg_catalog.=) 't' OR given.of_schema OPERATOR(pg_catalog.=) 'pg_temp'
            THEN 'is a temporary table, which no other session sees'
            WHEN EXISTS (WITH RECURSIVE part AS (
                              SELECT c.oid AS oid
                               UNION ALL
                              SELECT h.inhrelid
                                FROM part JOIN pg_catalog.pg_inherits AS h ON h.inhparent OPERATOR(pg_catalog.=) part.oid)
                         SELECT
                           FROM part JOIN pg_catalog.pg_class AS u ON u.oid OPERATOR(pg_catalog.=) part.oid
                          WHERE u.relpersistence OPERATOR(pg_catalog.=) 'u')
            THEN 'is UNLOGGED, or a partition is: a crash would empty it (ALTER TABLE ... SET LOGGED mends it)'
            WHEN c.relkind OPERATOR(pg_catalog.=) 'r'
                 AND EXISTS (SELECT FROM pg_catalog.pg_inherits AS h WHERE h.inhparent OPERATOR(pg_catalog.=) c.oid)
            THEN 'has tables that inherit from it, and its unique index does not cover their rows'
            WHEN EXISTS (SELECT
                           FROM pg_catalog.pg_rewrite AS w
                          WHERE w.ev_class OPERATOR(pg_catalog.=) c.oid
                            AND w.ev_type OPERATOR(pg_catalog.=) ANY (ARRAY['2', '3']::pg_catalog."char"[])
                            AND w.ev_enabled OPERATOR(pg_catalog.<>) 'D')
            THEN 'has a rule for INSERT or UPDATE, which changes what these do'
       END`

// sqlWithoutPolicy lists the commands that the role may run on the table c and that row-level
// security applies to, without a policy for them: SELECT and UPDATE then find no row, without an
// error.
const sqlWithoutPolicy = `
       CASE WHEN pg_catalog.row_security_active(c.oid) THEN
            (SELECT pg_catalog.string_agg(v.command, ', ')
               FROM (VALUES ('SELECT', 'r'), ('INSERT', 'a'), ('UPDATE', 'w')) AS v (command, letter)
              WHERE pg_catalog.has_any_column_privilege(c.oid, v.command)
                AND NOT EXISTS (SELECT
                                  FROM pg_catalog.pg_policy AS p
                                 WHERE p.polrelid OPERATOR(pg_catalog.=) c.oid
                                   AND p.polpermissive
                                   AND p.polcmd OPERATOR(pg_catalog.=) ANY (ARRAY['*', v.letter]::pg_catalog."char"[])
                                   AND EXISTS (SELECT
                                                 FROM pg_catalog.unnest(p.polroles) AS r (oid)
                                                WHERE CASE WHEN r.oid OPERATOR(pg_catalog.=) 0::pg_catalog.oid THEN true
                                                           ELSE pg_catalog.pg_has_role(r.oid, 'USAGE') END)))
       END`

// sqlClash names a unique index, or an exclusion constraint, that the column a takes part in and
// that isn't about whole ids: rows of two locks may violate it.
const sqlClash = `
       (SELECT i.indexrelid::pg_catalog.regclass::pg_catalog.text
          FROM pg_catalog.pg_index AS i
         CROSS JOIN LATERAL (SELECT (i.indkey::pg_catalog.int2[])[0:i.indnkeyatts OPERATOR(pg_catalog.-) 1] AS columns,
                                    EXISTS (SELECT
                                              FROM pg_catalog.pg_collation AS o
                                             WHERE o.oid OPERATOR(pg_catalog.=) ANY (i.indcollation::pg_catalog.oid[])
                                               AND NOT o.collisdeterministic) AS coarse) AS k
         CROSS JOIN LATERAL (SELECT coalesce((SELECT x.attnum OPERATOR(pg_catalog.=) ANY (k.columns)
                                                FROM pg_catalog.pg_attribute AS x
                                               WHERE x.attrelid OPERATOR(pg_catalog.=) i.indrelid
                                                 AND x.attname OPERATOR(pg_catalog.=) 'lock_id'
                                                 AND NOT x.attisdropped), false) AND NOT k.coarse AS whole_id) AS w
         WHERE i.indrelid OPERATOR(pg_catalog.=) a.attrelid
           AND (i.indisunique OR i.indisexclusion)
           AND NOT w.whole_id
           AND (a.attnum OPERATOR(pg_catalog.=) ANY (k.columns)
                OR (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
                   AND EXISTS (SELECT
                                 FROM pg_catalog.pg_depend AS d
                                WHERE d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                                  AND d.objid OPERATOR(pg_catalog.=) i.indexrelid
                                  AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
                                  AND d.refobjid OPERATOR(pg_catalog.=) i.indrelid
                                  AND d.refobjsubid OPERATOR(pg_catalog.=) a.attnum))
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

	columns map[string]column
}

// column is one of the table's columns.
type column struct {
	name string
	// kind is the type as a cast writes it, without its length or precision.
	kind string
	// base is the type that kind is a domain over, or kind itself, with length or precision:
	// as text, its oid, and its modifier alone.
	base   string
	oid    int64
	typmod int64

	notNull   bool
	generated bool
	// coarse: the collation takes different values for equal.
	coarse bool
	unique bool
	// clash is another unique index that this column is part of, or "".
	clash string
}

// describe reads what the catalogs say of the table. The result has no column where the table
// has none or isn't there.
func describe(rows []described) description {
	d := rows[0].description
	d.columns = make(map[string]column, len(rows))

	for _, row := range rows {
		if row.column.name != "" {
			d.columns[row.column.name] = row.column
		}
	}

	return d
}

// described is one row of sqlTable.
type described struct {
	description
	column column
}

func scanDescribed(from scanner) (d described, err error) {
	c := &d.column
	err = from.Scan(&d.schema, &d.table, &d.partitioned, &d.options, &d.unfit, &d.secured, &d.withoutPolicy,
		&c.name, &c.kind, &c.base, &c.oid, &c.typmod, &c.notNull, &c.generated, &c.coarse, &c.unique, &c.clash)

	return d, err
}

// description reads what the catalogs say of the table.
func (s *Store) description(ctx context.Context) (description, error) {
	rows, err := read(ctx, s, onPrimary(sqlTable), []any{s.table.Schema, s.table.Name}, scanDescribed)
	if err != nil {
		return description{}, fmt.Errorf("pglocker: looking up the columns of %s: %w", s.table, err)
	}

	return describe(rows), nil
}

// descriptionIn is description inside a transaction.
func (s *Store) descriptionIn(ctx context.Context, tx *sql.Tx) (description, error) {
	rows, err := drain(func() (*sql.Rows, error) {
		text, args := s.plain(onPrimary(sqlTable), []any{s.table.Schema, s.table.Name})

		return tx.QueryContext(ctx, text, args...)
	}, 1, scanDescribed)
	if err != nil {
		return description{}, err
	}

	return describe(rows), nil
}

// full reports whether the columns owner, acquired_at and contended_until are there.
func (d description) full() bool {
	return !slices.ContainsFunc(addedColumns, func(c addedColumn) bool { return d.columns[c.name].name == "" })
}

// option reports whether a storage parameter is set.
func (d description) option(name string) bool {
	return slices.ContainsFunc(strings.Split(d.options, ","), func(o string) bool { return strings.HasPrefix(o, name+"=") })
}

// Object identifiers of built-in types, the same on every server.
const (
	oidBigint      = 20
	oidText        = 25
	oidVarchar     = 1043
	oidTimestamptz = 1184
)

const (
	// varcharHeader is what a varchar's modifier is above its length.
	varcharHeader = 4
	// ownerLength is how many characters an owner column must take. The name of a grant is
	// Config.Owner and 23 bytes at most.
	ownerLength = 255
	// microseconds is the precision of a timestamptz that says nothing of it, and of one
	// that is (6).
	microseconds = 6
)

// canHoldLocks returns an error that names the first thing that keeps the table from holding
// locks. The optional columns are checked too if they are going to be used: all of them are
// there, or migrating adds those that aren't. A column that rounds times, or takes two ids
// for one, would let a lock be granted to another while its holder still believes; one that
// refuses what a release writes would never let it go.
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

// described is the column's type and what else may be wrong with it.
func (c column) described() string {
	text := c.base
	if c.kind != c.base && !strings.HasPrefix(c.base, c.kind) {
		text = c.kind + " (" + c.base + ")"
	}

	for _, more := range []struct {
		is   bool
		text string
	}{
		{c.coarse, " with a nondeterministic collation"},
		{c.generated, " GENERATED ALWAYS"},
		{c.notNull && c.optional(), " NOT NULL"},
	} {
		if more.is {
			text += more.text
		}
	}

	return text
}

// optional reports whether the column is one of those that a table may lack. They are NULL in
// a lock that is free, or that nobody has waited for.
func (c column) optional() bool {
	return slices.ContainsFunc(addedColumns, func(a addedColumn) bool { return a.name == c.name })
}

// needs is what the column must be, or "" if it is that.
func (c column) needs() string {
	var (
		fits   bool
		needed string
	)

	switch c.name {
	case "lock_id":
		needed = "text or character varying, with a deterministic collation"
		fits = (c.oid == oidText || c.oid == oidVarchar) && !c.coarse
	case "owner":
		needed = "text, or character varying(" + strconv.Itoa(ownerLength) + ") or longer, with a deterministic collation"
		fits = (c.oid == oidText || c.oid == oidVarchar && (c.typmod < 0 || c.typmod >= ownerLength+varcharHeader)) && !c.coarse
	case "generation":
		needed = "bigint"
		fits = c.oid == oidBigint
	default: // a time
		needed = "timestamp with time zone, with microseconds (no precision, or 6)"
		fits = c.oid == oidTimestamptz && (c.typmod < 0 || c.typmod == microseconds)
	}

	if c.optional() {
		needed += ", without NOT NULL"
		fits = fits && !c.notNull
	}

	if c.generated {
		needed += ", without GENERATED ALWAYS"
		fits = false
	}

	if fits {
		return ""
	}

	return needed
}

// usable returns why the table as it is can't be used by this role, or nil.
func (s *Store) usable(d description) error {
	if !d.table {
		return s.tableNotFound(nil)
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
