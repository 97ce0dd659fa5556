package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ismurov/pglocker"
)

// sqlLacking lists what the role lacks, with the statement that grants it: for locks, and, if the first column is
// false, for what not every role needs. $2 and $3 are the quoted names of the schema and the table, $4 begins the
// names of the functions, $5 is the history.
const sqlLacking = `
SELECT needed, what, mend
  FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
 CROSS JOIN LATERAL (
        SELECT true, 'USAGE on the schema', format('GRANT USAGE ON SCHEMA %s TO %I;', $2::text, current_user)
         WHERE NOT has_schema_privilege(n.oid, 'USAGE')
         UNION ALL
        SELECT v.needed, v.privilege || ' on the table', format('GRANT %s ON %s TO %I;', v.privilege, $3::text, current_user)
          FROM (VALUES (true, 'SELECT'), (true, 'INSERT'), (true, 'UPDATE'), (false, 'DELETE')) AS v (needed, privilege)
         WHERE NOT has_table_privilege(c.oid, v.privilege)
           AND (v.privilege IN ('SELECT', 'DELETE')
                OR EXISTS (SELECT FROM pg_attribute AS a
                            WHERE a.attrelid = c.oid AND NOT a.attisdropped
                              AND a.attname IN ('lock_id', 'generation', 'expires_at', 'owner', 'acquired_at', 'contended_until')
                              AND NOT has_column_privilege(c.oid, a.attnum, v.privilege)))
         UNION ALL
        SELECT false, 'EXECUTE on ' || f.proname, format('GRANT EXECUTE ON FUNCTION %s TO %I;', f.oid::regprocedure, current_user)
          FROM pg_proc AS f
         WHERE f.pronamespace = n.oid AND NOT has_function_privilege(f.oid, 'EXECUTE')
           AND f.proname IN ($4::text || 'acquire_lock', $4 || 'renew_lock', $4 || 'release_lock', $4 || 'assert_held')
         UNION ALL
        SELECT false, 'SELECT on the history', format('GRANT SELECT ON %s TO %I;', h.oid::regclass, current_user)
          FROM pg_class AS h
         WHERE h.relnamespace = n.oid AND h.relname = $5::text::name AND NOT has_table_privilege(h.oid, 'SELECT')
       ) AS lacks (needed, what, mend)
 WHERE c.oid = $1::oid`

// uses says what an optional privilege is for.
func uses(what string) string {
	switch {
	case strings.HasPrefix(what, "DELETE"):
		return "Prune needs it. Give it to the job that prunes alone"
	case strings.HasPrefix(what, "EXECUTE"):
		return "SQL clients need it"
	}

	return "looking at the history needs it"
}

func checkPrivileges(ctx context.Context, p *patient, result *Check) error {
	type lack struct {
		Needed     bool
		What, Mend string
	}

	prefix := ""
	if p.name != pglocker.DefaultTable {
		prefix = p.name + "_"
	}

	lacking, err := readRows[lack](ctx, p, sqlLacking, p.oid, p.inSchema, p.table, prefix, p.historyName())
	if err != nil {
		return err
	}

	result.seen("%s may take locks", p.role)

	for _, l := range lacking {
		if l.Needed {
			result.find(Error, "privilege", fmt.Sprintf("The role %s lacks %s.", p.forRole, l.What),
				"Programs that use this role can't take locks: ErrPermissionDenied.", l.Mend)
		} else {
			result.note("The role lacks %s: %s. %s", l.What, uses(l.What), l.Mend)
		}
	}

	if len(result.findings) == 0 {
		if err := findHidden(ctx, p, result); err != nil {
			return err
		}
	}

	if len(result.findings) > 0 {
		result.seen("%s can't take locks", p.role)
	}

	switch {
	case p.super:
		result.note("The role is a superuser: give your programs one that isn't.")
	case p.owner:
		result.note("The role owns the table: it can drop it, and put triggers on it. Give your programs a role that doesn't.")
	}

	return nil
}

// findHidden finds what the library is denied though the role has all privileges: row-level security.
func findHidden(ctx context.Context, p *patient, result *Check) error {
	if err := p.probe(ctx); errors.Is(err, pglocker.ErrPermissionDenied) {
		result.find(Error, "policy", strings.TrimPrefix(oneLine(err.Error()), "pglocker: ")+".",
			"PostgreSQL would hide locks from this role, and report no error.",
			fmt.Sprintf("CREATE POLICY pglocker ON %s TO %s USING (true) WITH CHECK (true);", p.table, p.forRole))
	}

	return ctxError(ctx)
}
