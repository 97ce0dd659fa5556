package doctor

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// sqlSettings reads settings as a new session of this role gets them, and where they come from.
const sqlSettings = `
SELECT name, coalesce(reset_val, ''), coalesce(source, '') FROM pg_settings WHERE name = ANY (string_to_array($1::text, ','))`

type setting struct{ Name, Value, Source string }

func (p *patient) settings(ctx context.Context, names ...string) (map[string]setting, error) {
	rows, err := readRows[setting](ctx, p, sqlSettings, strings.Join(names, ","))
	found := make(map[string]setting, len(rows))

	for _, s := range rows {
		found[s.Name] = s
	}

	return found, err
}

// limited is a setting that ends statements or sessions, in milliseconds. 0 is never.
type limited struct {
	name string
	// least is what pglocker needs, enough what to set in place of less.
	least  time.Duration
	enough string
	// means is what a lower one does.
	means string
}

var limitedSettings = []limited{
	{"statement_timeout", time.Second, "10s", "Requests and renewals on a busy server are cancelled. Those that wait are repeated, the others fail."},
	{"lock_timeout", 100 * time.Millisecond, "2s", "Requests that meet a locked row fail at once, and those that wait are repeated again and again."},
	{"transaction_timeout", time.Second, "60s", "Requests on a busy server lose their connection, with an unknown outcome."},
	{"idle_in_transaction_session_timeout", time.Second, "30s", "A guarded transaction that computes between two statements loses its connection."},
	{"idle_session_timeout", 5 * time.Minute, "0", "The connections that renew and listen are closed again and again. Waiters poll meanwhile."},
}

func checkTimeouts(ctx context.Context, p *patient, result *Check) error {
	var names []string
	for _, l := range limitedSettings {
		names = append(names, l.name)
	}

	found, err := p.settings(ctx, names...)
	if err != nil {
		return err
	}

	var set []string

	for _, l := range limitedSettings {
		s, known := found[l.name] // older servers lack some
		ms, _ := strconv.ParseInt(s.Value, 10, 64)
		value := time.Duration(ms) * time.Millisecond

		if !known || value == 0 {
			continue
		}

		set = append(set, fmt.Sprintf("%s %s", l.name, span(value)))

		if value < l.least {
			mend := fmt.Sprintf("ALTER ROLE %s SET %s = %s;", p.forRole, l.name, quoteText(l.enough))
			if s.Source == "client" {
				mend = "-- The connection string, or PGOPTIONS, sets it: take it out there."
			}

			result.find(Warning, strings.ReplaceAll(l.name, "_", "-"), fmt.Sprintf("%s is %s for this role and database.", l.name, span(value)),
				l.means, mend)
		}
	}

	result.seen("none is set")

	if len(set) > 0 {
		result.seen("%s", strings.Join(set, ", "))
	}

	if found["idle_in_transaction_session_timeout"].Value == "0" {
		result.note("If you use Guard: without idle_in_transaction_session_timeout, the guarded transaction of a dead machine "+
			"keeps its lock from others. ALTER ROLE %s SET idle_in_transaction_session_timeout = '30s';", p.forRole)
	}

	return nil
}

// sqlOthersCreate lists the schemas of the path $1 in which every role may create.
const sqlOthersCreate = `
SELECT quote_ident(n.nspname)
  FROM pg_namespace AS n
 WHERE n.nspname = ANY (string_to_array($1::text, E'\n')::name[])
   AND EXISTS (SELECT FROM aclexplode(n.nspacl) AS a WHERE a.grantee = 0 AND a.privilege_type = 'CREATE')
 ORDER BY 1`

// sqlImpostors lists functions and operators in the path $1 that would be called in place of PostgreSQL's: a
// function of the same arguments, if its schema comes first ($2), and an operator for built-in types. Those of
// extensions are left out.
const sqlImpostors = `
SELECT format('%I.%I(%s)', n.nspname, f.proname, pg_get_function_identity_arguments(f.oid))
  FROM pg_proc AS f JOIN pg_namespace AS n ON n.oid = f.pronamespace
 WHERE n.nspname = ANY (string_to_array($2::text, E'\n')::name[])
   AND EXISTS (SELECT FROM pg_proc AS b
                WHERE b.pronamespace = 'pg_catalog'::regnamespace AND b.proname = f.proname AND b.proargtypes = f.proargtypes)
   AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.deptype = 'e')
 UNION ALL
SELECT format('%I.%s (%s, %s)', n.nspname, o.oprname, format_type(o.oprleft, NULL), format_type(o.oprright, NULL))
  FROM pg_operator AS o JOIN pg_namespace AS n ON n.oid = o.oprnamespace
 WHERE n.nspname = ANY (string_to_array($1::text, E'\n')::name[])
   AND NOT EXISTS (SELECT FROM pg_type AS t
                    WHERE t.oid IN (o.oprleft, o.oprright) AND t.typnamespace <> 'pg_catalog'::regnamespace)
   AND EXISTS (SELECT FROM pg_operator AS b WHERE b.oprnamespace = 'pg_catalog'::regnamespace AND b.oprname = o.oprname)
   AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.classid = 'pg_operator'::regclass AND d.objid = o.oid AND d.deptype = 'e')
 ORDER BY 1 LIMIT 20`

func checkSearchPath(ctx context.Context, p *patient, result *Check) error {
	conn, err := p.connected(ctx)
	if err != nil {
		return err
	}

	// Outside the doctor's own transactions, which have another path.
	rows, _ := conn.Query(ctx, "SELECT pg_catalog.unnest(pg_catalog.current_schemas(true))::pg_catalog.text")

	path, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}

	theirs := func(names []string) string {
		return strings.Join(slices.DeleteFunc(slices.Clone(names), func(n string) bool { return n == "pg_catalog" }), "\n")
	}
	before := path[:max(slices.Index(path, "pg_catalog"), 0)]

	open, err := readList(ctx, p, sqlOthersCreate, theirs(path))
	if err != nil {
		return err
	}

	impostors, err := readList(ctx, p, sqlImpostors, theirs(path), theirs(before))
	if err != nil {
		return err
	}

	result.seen("%s; pglocker doesn't depend on it", strings.Join(path, ", "))

	for _, schema := range open {
		result.note("Every role may create in the schema %s. pglocker calls PostgreSQL's own functions alone (G10), so this does it "+
			"no harm. Other programs are in danger: REVOKE CREATE ON SCHEMA %s FROM PUBLIC;", schema, schema)
	}

	if len(impostors) > 0 {
		result.note("These stand in for functions or operators of PostgreSQL: %s. pglocker never calls them (G10). "+
			"Other programs do: find out who made them.", strings.Join(impostors, "; "))
	}

	return nil
}

// checkDurability says what a crash may undo.
func checkDurability(ctx context.Context, p *patient, result *Check) error {
	found, err := p.settings(ctx, "synchronous_commit", "fsync", "full_page_writes")
	if err != nil {
		return err
	}

	commit := found["synchronous_commit"].Value
	result.seen("synchronous_commit %s, fsync %s", commit, found["fsync"].Value)

	if commit == "off" || commit == "local" {
		result.note("synchronous_commit is %s. pglocker turns it on for grants and renewals. Your own transactions, guarded ones "+
			"too, may be lost in a crash.", commit)
	}

	for _, name := range []string{"fsync", "full_page_writes"} {
		if found[name].Value == "off" {
			result.note("%s is off, as on a server for tests. A power cut loses acknowledged grants, and may destroy the database: "+
				"ALTER SYSTEM SET %s = on; SELECT pg_reload_conf();", name, name)
		}
	}

	return nil
}
