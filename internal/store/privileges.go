package store

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// sqlLacking lists what the role lacks for locks in the table $2 of the schema $1, or, if $3 is
// true, for making or completing it, with the statement that mends it. It reads the catalogs alone.
// SELECT must be granted on the table: ctid can't be granted alone.
var sqlLacking = qualified(`
SELECT CURRENT_USER::{text}, lacks.what, lacks.mend
  FROM (VALUES ($1::{text}, $2::{text}, $3::{text} {=} 'true'))
       AS given (of_schema, of_table, migrating)
  LEFT JOIN pg_catalog.pg_namespace AS n
    ON n.nspname {=} given.of_schema::pg_catalog.name
  LEFT JOIN pg_catalog.pg_class AS c
    ON c.relnamespace {=} n.oid AND c.relname {=} given.of_table::pg_catalog.name
 CROSS JOIN LATERAL (
        SELECT v.privilege {||} ' on the database',
               pg_catalog.format('GRANT %s ON DATABASE %I TO %I', v.privilege, pg_catalog.current_database(), CURRENT_USER)
          FROM (VALUES ('CREATE')) AS v (privilege)
         WHERE given.migrating AND n.oid IS NULL
           AND NOT pg_catalog.has_database_privilege(pg_catalog.current_database(), v.privilege)
         UNION ALL
        SELECT v.privilege {||} ' on the schema',
               pg_catalog.format('GRANT %s ON SCHEMA %I TO %I', v.privilege, n.nspname, CURRENT_USER)
          FROM (VALUES ('USAGE', true), ('CREATE', given.migrating AND c.oid IS NULL)) AS v (privilege, needed)
         WHERE v.needed AND NOT pg_catalog.has_schema_privilege(n.oid, v.privilege)
         UNION ALL
        SELECT v.privilege {||} ' on the table',
               pg_catalog.format('GRANT %s ON %I.%I TO %I', v.privilege, n.nspname, c.relname, CURRENT_USER)
          FROM (VALUES ('SELECT'), ('INSERT'), ('UPDATE')) AS v (privilege)
         WHERE NOT given.migrating
           AND NOT pg_catalog.has_table_privilege(c.oid, v.privilege)
           AND (v.privilege {=} 'SELECT'
                OR EXISTS (SELECT
                             FROM pg_catalog.pg_attribute AS a
                            WHERE a.attrelid {=} c.oid
                              AND a.attname {=} ANY (ARRAY['lock_id', 'generation', 'expires_at',
                                                                             'owner', 'acquired_at', 'contended_until'])
                              AND NOT a.attisdropped
                              AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, v.privilege)))
         UNION ALL
        SELECT 'the table''s ownership, which is ' {||} pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(c.relowner)) {||} '''s',
               pg_catalog.format('GRANT %I TO %I, or run it as that role', pg_catalog.pg_get_userbyid(c.relowner), CURRENT_USER)
         WHERE given.migrating AND NOT pg_catalog.pg_has_role(c.relowner, 'USAGE')
         UNION ALL
        SELECT 'a policy of row-level security on the table for ' {||} ` + sqlWithoutPolicy + `,
               'CREATE POLICY'
         WHERE NOT given.migrating AND ` + sqlWithoutPolicy + ` IS NOT NULL
         UNION ALL
        SELECT '', ''
         WHERE NOT given.migrating AND pg_catalog.row_security_active(c.oid)
       ) AS lacks (what, mend)`)

// lack is one thing that the role lacks. A lack of nothing says that row-level security applies.
type lack struct{ role, what, mend string }

// lookTime bounds a look-up of what an error doesn't say.
const lookTime = time.Second

// denied adds to a server's error that permission was denied what the role lacks.
func (s *Store) denied(ctx context.Context, err error, migrating bool) error {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()

	a := ask(ctx, s, sqlLacking, []any{s.table.Schema, s.table.Name, fmt.Sprint(migrating)},
		func(from scanner) (l lack, err error) {
			err = from.Scan(&l.role, &l.what, &l.mend)

			return l, err
		})
	if a.err != nil {
		return s.explain(err)
	}

	secured := slices.ContainsFunc(a.rows, func(l lack) bool { return l.what == "" })
	lacking := slices.DeleteFunc(a.rows, func(l lack) bool { return l.what == "" })

	switch {
	case len(lacking) > 0:
		list := valuesOf(lacking, func(l *lack) string { return l.what + " (" + l.mend + ")" })

		return fmt.Errorf("%w: the role %s lacks for %s: %s: %w",
			ErrPermissionDenied, quoteIdentifier(lacking[0].role), s.table, strings.Join(list, ", "), err)
	case secured:
		return fmt.Errorf("%w: row-level security of %s refused it, or another object that a trigger or a policy of it uses: %w",
			ErrPermissionDenied, s.table, err)
	}

	return fmt.Errorf("%w: the role has all privileges on %s itself: %w", ErrPermissionDenied, s.table, err)
}

// named is [Store.explain] that asks the server what a role lacks that was denied something.
func (s *Store) named(ctx context.Context, err error) error {
	if sqlState(err) == codeInsufficientPriv {
		return s.denied(ctx, err, false)
	}

	return s.explain(err)
}

// hidden is the error of a request whose row is hidden by row-level security. PostgreSQL passes
// over such a row without an error.
func (s *Store) hidden(id string) error {
	return fmt.Errorf("%w: no policy of row-level security on %s lets this role see and update the row of the lock %q",
		ErrPermissionDenied, s.table, id)
}
