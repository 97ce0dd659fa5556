package fault

import "github.com/ismurov/pglocker/verify/internal/cluster"

// hostileSQL makes a schema with everything that another role could put into one of the search
// path: functions and operators with the very arguments of PostgreSQL's own, operators for pairs of
// types for which it has none (an exact match is preferred to a cast), and types by the names of
// its own. Almost all fail when called. Two lie: about how long a lease is, and what time it is.
const hostileSQL = `
CREATE SCHEMA hostile;

DO $$
DECLARE
    one record;
    n integer := 0;
    fails constant text := ' LANGUAGE plpgsql AS $f$BEGIN RAISE EXCEPTION ''hostile''; END$f$';
BEGIN
    SET LOCAL search_path = pg_catalog;

    FOR one IN
        SELECT p.proname AS name, pg_get_function_identity_arguments(p.oid) AS args, p.proretset AS many,
               format_type(p.prorettype, NULL) AS returns
          FROM pg_proc AS p
         WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
           AND p.provariadic = 0 AND p.proallargtypes IS NULL
           AND NOT EXISTS (SELECT FROM pg_type AS t
                            WHERE t.typtype = 'p' AND t.typname NOT IN ('anyarray', 'anyelement', 'anynonarray')
                              AND (t.oid = ANY (p.proargtypes::oid[]) OR t.oid = p.prorettype AND t.typname <> 'void'))
    LOOP
        EXECUTE format('CREATE FUNCTION hostile.%I(%s) RETURNS %s %s', one.name, one.args,
                       CASE WHEN one.many THEN 'SETOF' ELSE '' END, one.returns) || fails;
    END LOOP;

    FOR one IN
        WITH common AS (
            SELECT oid FROM pg_type WHERE typnamespace = 'pg_catalog'::regnamespace AND typname = ANY (
                '{int2,int4,int8,numeric,float8,text,varchar,name,interval,timestamptz,bit,bool,_text,_int8}')
        )
        SELECT oprname AS name, oprleft::regtype AS l, oprright::regtype AS r
          FROM pg_operator WHERE oprkind = 'b' AND oprnamespace = 'pg_catalog'::regnamespace
         UNION
        SELECT s, l.oid::regtype, r.oid::regtype
          FROM unnest('{=,<>,<,>,<=,>=,+,-,*,/,%,||,<<,>>,#,&,|}'::text[]) AS s, common AS l, common AS r
    LOOP
        n := n + 1;
        EXECUTE format('CREATE FUNCTION hostile."operator %s"(%s, %s) RETURNS %s', n, one.l, one.r,
                       CASE WHEN one.name IN ('=', '<>', '<', '>', '<=', '>=') THEN 'boolean' ELSE one.l::text END) || fails;
        EXECUTE format('CREATE OPERATOR hostile.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = hostile."operator %s")',
                       one.name, one.l, one.r, n);
    END LOOP;

    CREATE FUNCTION hostile.shorter(bigint, interval) RETURNS interval LANGUAGE sql AS $f$SELECT '60 ms'::interval$f$;
    DROP OPERATOR hostile.* (bigint, interval);
    CREATE OPERATOR hostile.* (LEFTARG = bigint, RIGHTARG = interval, FUNCTION = hostile.shorter);

    CREATE OR REPLACE FUNCTION hostile.clock_timestamp() RETURNS timestamp with time zone LANGUAGE sql AS
        $f$SELECT pg_catalog.now() + '1 hour'$f$;

    FOR one IN SELECT unnest('{text,timestamptz,int2,int4,int8,oid,name,regclass,jsonb}'::text[]) AS name
    LOOP
        EXECUTE format('CREATE DOMAIN hostile.%I AS boolean', one.name);
    END LOOP;
END $$;
`

// hostileSchema puts that schema before all others, for the clients' role.
func hostileSchema() string {
	return hostileSQL + cluster.RoleSQL("hostile") + cluster.RoleSetting("search_path", "hostile, public, pg_catalog")
}
