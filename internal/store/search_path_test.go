package store_test

import (
	"database/sql"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

var (
	// sqlToken finds, in this order: literals, quoted names, parameters, names with what they
	// are qualified by, numbers, casts, operators, and anything else.
	sqlToken = regexp.MustCompile(`E?'(?:[^']|'')*'|\$\d+|(?:\w+|"[^"]*")(?:\.(?:\w+|"[^"]*"|\*))*|::|:=|[-+*/<>=~!@#%^&|?` + "`" + `]+|\S`)

	sqlCall     = regexp.MustCompile(`\b([a-z_]+) ?\(`)
	sqlOperator = regexp.MustCompile(`[-+*/<>=~!@#%^&|?]+`)
	sqlType     = regexp.MustCompile(`(?:::|, )(?:pg_catalog\.)?([a-z]+)`)

	sqlName = regexp.MustCompile(`^[A-Za-z_]\w*$`)

	// Words that stand before a bracket and call nothing, or what the grammar alone says.
	callsNothing = strings.Fields(`AS ANY ALL EXISTS FILTER FROM VALUES AND OR NOT THEN ELSE WHEN LATERAL ON IS SET
		MATERIALIZED SELECT RETURNING greatest least coalesce extract bit REFERENCES TABLE OPERATOR WHERE ROW ARRAY CONFLICT LIMIT OVER`)

	// Types by keywords, which the grammar takes from pg_catalog.
	keywordTypes = strings.Fields(`bigint bit interval BIGINT TIMESTAMP`)
)

// unqualified returns what a text leaves to the search_path.
func unqualified(text string) (found []string) {
	tokens := sqlToken.FindAllString(text, -1)
	at := func(i int) string {
		if i < 0 || i >= len(tokens) {
			return ""
		}

		return tokens[i]
	}

	var (
		depth int
		// assigning is the depth of an UPDATE's SET, or of ALTER TABLE's, or -1.
		assigning = -1
		ddl       = strings.HasPrefix(text, "CREATE") || strings.HasPrefix(text, "ALTER") || strings.HasPrefix(text, "DROP")
		declares  = strings.Contains(text, "DECLARE") // the text of a function
	)

	for i, token := range tokens {
		name := sqlName.MatchString(token)

		switch {
		case token == "(":
			depth++
		case token == ")":
			depth--

			if depth < assigning {
				assigning = -1
			}
		case token == "SET":
			assigning = depth

			if ddl {
				assigning++
			}
		case depth == assigning && slices.Contains([]string{"WHERE", "FROM", "RETURNING"}, token):
			assigning = -1
		}

		switch {
		case at(i-1) == "." || strings.HasPrefix(token, "'") || strings.HasPrefix(token, "E'"):
		case token == "OPERATOR" && at(i+1) != "(":
			found = append(found, token)
		case slices.Contains([]string{"IN", "BETWEEN", "LIKE", "ILIKE", "SIMILAR", "DISTINCT", "OVERLAPS", "USING"}, token) &&
			at(i+1) != "heap" && at(i-1) != "EXCEPTION" && at(i-1) != "SELECT" && // SELECT DISTINCT compares as the types do by default
			!(token == "USING" && at(i+2) == "AS"): // the other tables of a DELETE
			found = append(found, token)
		case token == "CASE" && at(i+1) != "WHEN":
			found = append(found, "CASE "+at(i+1))
		case token == "COLLATE" && !strings.HasPrefix(at(i+1), "pg_catalog."):
			found = append(found, "COLLATE "+at(i+1))
		case token == "::":
			if kind := at(i + 1); !strings.HasPrefix(kind, "pg_catalog.") && !slices.Contains(keywordTypes, kind) {
				found = append(found, "::"+kind)
			}
		case name && at(i+1) == "(":
			// A list of columns has an alias or INTO before it.
			alias := at(i-1) == "AS" || at(i-2) == "INTO" || at(i-3) == "INTO" || at(i-1) == "RECURSIVE"
			if !alias && !slices.Contains(callsNothing, token) && !slices.Contains(callsNothing, strings.ToUpper(token)) &&
				!(token == "KEY" || at(i-1) == "ROWS") {
				found = append(found, token+"(")
			}
		case (ddl || declares) && name && slices.Contains([]string{"TEXT", "TIMESTAMPTZ", "text", "timestamptz", "bool", "void"}, token):
			found = append(found, token)
		case strings.Trim(token, "-+*/<>=~!@#%^&|?`") == "" && token != "":
			star := token == "*" && (at(i-1) == "SELECT" || at(i-1) == "(")
			assigned := token == "=" && depth == assigning && slices.Contains([]string{"SET", ",", "("}, at(i-2))
			raised := token == "=" && slices.Contains([]string{"ERRCODE", "MESSAGE", "HINT"}, at(i-1))

			procedural := token == "=" && (at(i-1) == ":" || at(i-2) == "SET" && ddl) // of PL/pgSQL; of a function

			if !star && !assigned && !raised && !procedural {
				found = append(found, at(i-1)+" "+token+" "+at(i+1))
			}
		}
	}

	return found
}

// TestNothingIsLeftToTheSearchPath: no text has the name of a function or a type without
// its schema, or an operator that the search_path or the types of its arguments choose.
func TestNothingIsLeftToTheSearchPath(t *testing.T) {
	t.Parallel()

	qualifier := regexp.MustCompile(`pg_catalog\.\w+|pg_catalog\."C"|OPERATOR\(pg_catalog\.[^)]+\)`)
	mutants := 0

	for name, text := range store.AllTexts() {
		if found := unqualified(text); len(found) > 0 {
			t.Errorf("%s leaves to the search_path what is meant by %q:\n%s", name, found, text)
		}

		// Without any one of them it would be noticed. (Tables are names of pg_catalog too.)
		for _, at := range qualifier.FindAllStringIndex(text, -1) {
			was := text[at[0]:at[1]]
			if strings.HasPrefix(was, "pg_catalog.pg_") && !strings.HasPrefix(text[at[1]:], "(") {
				continue
			}

			bare := strings.TrimPrefix(strings.TrimSuffix(strings.TrimPrefix(was, "OPERATOR("), ")"), "pg_catalog.")
			if len(unqualified(text[:at[0]]+bare+text[at[1]:])) == 0 {
				t.Errorf("%s with %q in place of %q would pass:\n%s", name, bare, was, text)
			}

			mutants++
		}
	}

	if mutants < 500 {
		t.Errorf("%d names were tried", mutants)
	}
}

// names takes the names of functions, operators and types from all texts, qualified or
// not. Not all that stand before a bracket are functions.
func names() (functions, operators, types []string) {
	sets := [3]map[string]bool{{}, {}, {"int8": true, "timestamp": true, "bool": true}}

	for _, text := range store.AllTexts() {
		for _, m := range sqlCall.FindAllStringSubmatch(text, -1) {
			sets[0][m[1]] = true
		}

		for _, m := range sqlOperator.FindAllString(text, -1) {
			sets[1][m] = true
		}

		for _, m := range sqlType.FindAllStringSubmatch(text, -1) {
			sets[2][m[1]] = true
		}
	}

	return slices.Sorted(maps.Keys(sets[0])), slices.Sorted(maps.Keys(sets[1])), slices.Sorted(maps.Keys(sets[2]))
}

// shadow makes a schema "front" with functions, operators, types and a collation of the
// names that the texts use, for all types of arguments that may match. Whatever is called
// there raises.
func shadow(tb testing.TB, db *sql.DB) {
	tb.Helper()

	functions, operators, types := names()
	if len(functions) < 12 || len(operators) < 9 || len(types) < 5 {
		tb.Fatalf("too few names: %q %q %q", functions, operators, types)
	}

	contract.Exec(tb, db, "CREATE SCHEMA front")
	contract.Exec(tb, db, fmt.Sprintf(`
DO $do$
DECLARE
    kinds CONSTANT text[] := '{bigint,integer,smallint,numeric,double precision,text,varchar,name,"char",boolean,oid,tid,bit,
                               timestamptz,interval,text[],bigint[],regclass}';
    f     record;
    op    text;
    a     text;
    b     text;
    body  CONSTANT text := ' LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION ''a stranger''''s function was called''; END $$';
BEGIN
    -- The same signatures as pg_catalog's, and what would match better.
    FOR f IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS args, pg_get_function_result(p.oid) AS result
               FROM pg_proc AS p
              WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY ('%[1]s') AND p.prokind = 'f'
                AND '"any"'::regtype <> ALL (p.proargtypes) -- which PL/pgSQL lacks
    LOOP
        EXECUTE format('CREATE OR REPLACE FUNCTION front.%%I(%%s) RETURNS %%s', f.proname, f.args, f.result) || body;
    END LOOP;

    FOREACH op IN ARRAY '%[1]s'::text[] LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_proc WHERE proname = op);
        FOREACH a IN ARRAY kinds LOOP
            IF to_regprocedure(format('front.%%I(%%s)', op, a)) IS NULL THEN
                EXECUTE format('CREATE FUNCTION front.%%I(%%s) RETURNS boolean', op, a) || body;
            END IF;
            CONTINUE WHEN NOT EXISTS (SELECT FROM pg_proc WHERE proname = op AND pronargs > 1);
            FOREACH b IN ARRAY kinds LOOP
                IF to_regprocedure(format('front.%%I(%%s,%%s)', op, a, b)) IS NULL THEN
                    EXECUTE format('CREATE FUNCTION front.%%I(%%s, %%s) RETURNS boolean', op, a, b) || body;
                END IF;
            END LOOP;
        END LOOP;
    END LOOP;

    FOREACH a IN ARRAY kinds LOOP
        FOREACH b IN ARRAY kinds LOOP
            EXECUTE format('CREATE FUNCTION front.strange(%%s, %%s) RETURNS boolean', a, b) || body;
            FOREACH op IN ARRAY '%[2]s'::text[] LOOP
                EXECUTE format('CREATE OPERATOR front.%%s (LEFTARG = %%s, RIGHTARG = %%s, FUNCTION = front.strange)', op, a, b);
            END LOOP;
        END LOOP;
    END LOOP;

    FOREACH a IN ARRAY '%[3]s'::text[] LOOP
        CONTINUE WHEN NOT EXISTS (SELECT FROM pg_type WHERE typname = a AND typnamespace = 'pg_catalog'::regnamespace);
        EXECUTE format('CREATE DOMAIN front.%%I AS pg_catalog.int4 CHECK (false)', a);
    END LOOP;

    CREATE COLLATION front."C" (locale = 'POSIX');
END $do$`,
		"{"+strings.Join(functions, ",")+"}", "{"+strings.Join(operators, ",")+"}", "{"+strings.Join(types, ",")+"}"))
}

// inFront returns the URL with the schema front before pg_catalog.
func inFront(tb testing.TB, databaseURL string) string {
	tb.Helper()

	u, err := url.Parse(databaseURL)
	if err != nil {
		tb.Fatal(err)
	}

	q := u.Query()
	q.Set("search_path", "front,pg_catalog")
	u.RawQuery = q.Encode()

	return u.String()
}

// TestStrangersInFront: with everything that the texts name shadowed by what raises, in
// front of pg_catalog, all is as it was.
func TestStrangersInFront(t *testing.T) {
	t.Parallel()

	newShadowed := func(tb testing.TB) string {
		tb.Helper()

		databaseURL := databases.NewDatabase(tb).String()
		shadow(tb, contract.Open(tb, "pgx", databaseURL))

		return databaseURL
	}

	for _, driver := range []string{"pgx", "postgres"} {
		contract.Run(t, contract.Setup{Name: driver, Driver: driver, Via: inFront}, newShadowed)
	}

	eachDriver(t, func(t *testing.T, driver string) {
		databaseURL := newShadowed(t)
		direct := contract.Open(t, driver, databaseURL)
		db := contract.Open(t, driver, inFront(t, databaseURL))

		if _, err := db.ExecContext(t.Context(), "SELECT clock_timestamp()"); err == nil {
			t.Fatal("what is in front isn't called")
		}

		contract.Exec(t, direct, "CREATE TABLE three ("+contract.ThreeColumns+")")
		contract.Exec(t, direct, "CREATE SCHEMA old; CREATE TABLE old.locks ("+contract.ThreeColumns+")")

		if err := store.Migrate(t.Context(), db, store.Table{Schema: "old", Name: "locks"}, nil); err != nil {
			t.Errorf("completing a table: %v", err)
		}

		if err := store.Migrate(t.Context(), db, table, nil); err != nil {
			t.Fatalf("making a table: %v", err)
		}

		const strange = `SELECT count(*) FROM pg_attribute AS a
			  JOIN pg_class AS c ON c.oid = a.attrelid
			  JOIN pg_type AS t ON t.oid = a.atttypid
			  LEFT JOIN pg_collation AS k ON k.oid = a.attcollation
			 WHERE c.relname IN ('lock_statuses', 'locks')
			   AND (t.typnamespace <> 'pg_catalog'::regnamespace OR k.collnamespace <> 'pg_catalog'::regnamespace)`

		if n := contract.Query[int](t, direct, strange); n > 0 {
			t.Errorf("%d columns are of a stranger's type or collation", n)
		}

		// The functions pin their search_path, and would do without.
		newSQLLock(t, db, "pinned").through()

		for _, signature := range []string{
			"acquire_lock(text, interval, text)", "renew_lock(text, bigint, interval)", "release_lock(text, bigint)",
			"assert_held(text, bigint)",
		} {
			contract.Exec(t, direct, "ALTER FUNCTION pglocker."+signature+" RESET search_path")
		}

		newSQLLock(t, contract.Open(t, driver, inFront(t, databaseURL)), "not pinned").through()

		for _, table := range []store.Table{table, {Schema: "public", Name: "three"}} {
			s := store.New(db, table, nil)

			if err := s.Notify(t.Context(), "somebody"); err != nil {
				t.Errorf("Notify: %v", err)
			}

			for _, verb := range []string{"insert", "acquire", "refresh", "release", "get", "look"} {
				asked := []*store.Asked{{ID: "a", Owner: "me", TTL: time.Minute}, {ID: "b", Owner: "me", TTL: time.Minute}}

				if err := store.AskTogether(t.Context(), s, verb, asked); err != nil {
					t.Fatal(err)
				}

				for _, a := range asked {
					if a.Err != nil {
						t.Errorf("%s together: %v", verb, a.Err)
					}
				}
			}
		}
	})
}

// TestForeignOperator: a role that may create in public makes an operator that matches better than
// PostgreSQL's own, which needs a cast. It isn't called.
func TestForeignOperator(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		s, db := newStore(t, driver)

		for _, text := range []string{
			`CREATE FUNCTION public.three_seconds(bigint, interval) RETURNS interval LANGUAGE sql AS 'SELECT interval ''3 s'''`,
			`CREATE OPERATOR public.* (LEFTARG = bigint, RIGHTARG = interval, FUNCTION = public.three_seconds)`,
			`CREATE FUNCTION public.mod(bigint, integer) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint'`,
			`CREATE FUNCTION public.unnest(text[]) RETURNS SETOF text LANGUAGE sql AS 'SELECT ''nobody'''`,
		} {
			contract.Exec(t, db, text)
		}

		const hour = time.Hour

		granted, err := s.Acquire(t.Context(), "a", "me", hour, margin)
		if err != nil || granted.Verdict != store.Granted {
			t.Fatalf("Acquire: %+v, %v", granted, err)
		}

		check := func(verb string, expiresAt time.Time) {
			if left := expiresAt.Sub(contract.Now(t, db)); left < hour/2 {
				t.Errorf("%s: the lease of %s ends in %s, and another may be granted the lock", verb, hour, left)
			}
		}

		check("Acquire", granted.Row.ExpiresAt)

		results, _, err := s.Renew(t.Context(), []store.Renewal{{LockID: "a", Generation: granted.Row.Generation, TTL: 2 * hour}}, nil)
		if err != nil || results[0].State != store.Renewed {
			t.Fatalf("Renew: %+v, %v", results, err)
		}

		check("Renew", results[0].ExpiresAt.Add(-hour))

		claimed, err := s.Claim(t.Context(), "a", "other", hour, margin, store.Mark{For: store.LongestMark})
		if err != nil || claimed.Verdict != store.Busy || !claimed.Row.ContendedUntil.After(claimed.Row.Now) {
			t.Errorf("Claim: %+v, %v, want busy, with a mark", claimed, err)
		}
	})
}
