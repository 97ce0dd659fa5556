package migrations_test

import (
	"database/sql"
	"slices"
	"testing"
)

// catalog is what the catalogs say of all that is in the schema pglocker: whole rows without what differs
// from one database to the next, and definitions. Some servers mark each column with an option of theirs,
// pg_attver.
const catalog = `
	SELECT 'schema ' || coalesce(n.nspacl::text, '-') || ' ' || coalesce(obj_description(n.oid), '-')
	  FROM pg_namespace n WHERE n.nspname = 'pglocker'
	UNION ALL
	SELECT 'relation ' || (to_jsonb(c) - '{oid,relnamespace,reltype,relfilenode,reltoastrelid,relfrozenxid,relminmxid,relpages,reltuples,relallvisible}'::text[])::text
	       || ' ' || coalesce(obj_description(c.oid), '-')
	  FROM pg_class c WHERE c.relnamespace = 'pglocker'::regnamespace
	UNION ALL
	SELECT 'column ' || c.relname || ' ' || (to_jsonb(a) - '{attrelid,attoptions}'::text[])::text
	       || ' ' || coalesce((SELECT string_agg(o, ' ' ORDER BY o) FROM unnest(a.attoptions) AS o WHERE o NOT LIKE 'pg_attver=%'), '-') || ' ' || format_type(a.atttypid, a.atttypmod)
	       || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '-') || ' ' || coalesce(col_description(c.oid, a.attnum), '-')
	  FROM pg_class c
	  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
	  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
	 WHERE c.relnamespace = 'pglocker'::regnamespace
	UNION ALL
	SELECT 'index ' || pg_get_indexdef(i.indexrelid) || ' ' || (to_jsonb(i) - '{indexrelid,indrelid}'::text[])::text
	  FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace = 'pglocker'::regnamespace
	UNION ALL
	SELECT 'constraint ' || c.conname || ' ' || c.conrelid::regclass || ' ' || pg_get_constraintdef(c.oid)
	  FROM pg_constraint c WHERE c.connamespace = 'pglocker'::regnamespace
	UNION ALL
	SELECT 'sequence ' || c.relname || ' ' || (to_jsonb(s) - 'seqrelid')::text
	  FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid WHERE c.relnamespace = 'pglocker'::regnamespace
	UNION ALL
	SELECT 'trigger ' || t.tgenabled::text || ' ' || pg_get_triggerdef(t.oid)
	  FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = 'pglocker'::regnamespace
	UNION ALL
	SELECT 'function ' || (to_jsonb(p) - '{oid,pronamespace}'::text[])::text || ' ' || pg_get_functiondef(p.oid) || ' ' || coalesce(obj_description(p.oid), '-')
	  FROM pg_proc p WHERE p.pronamespace = 'pglocker'::regnamespace
	UNION ALL
	SELECT 'policy or rule ' || c.relname FROM pg_class c
	 WHERE c.relnamespace = 'pglocker'::regnamespace
	   AND (EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid) OR EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid))`

func describe(t *testing.T, db *sql.DB) []string {
	t.Helper()

	lines := column(t, db, catalog)
	slices.Sort(lines)

	return lines
}
