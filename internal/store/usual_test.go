package store_test

import (
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// TestQuickLook: the quick look is enough for the usual tables, agrees with the thorough one, and leaves to that
// whatever only it can judge.
func TestQuickLook(t *testing.T) {
	t.Parallel()

	const (
		rest  = ", generation bigint NOT NULL, expires_at timestamptz NOT NULL"
		three = "CREATE TABLE locks (lock_id text COLLATE \"C\" PRIMARY KEY" + rest + ");"
		six   = "CREATE TABLE locks (lock_id text COLLATE \"C\" PRIMARY KEY" + rest + ", owner text, acquired_at timestamptz, contended_until timestamptz);"
		// unkeyed is a table whose index comes later.
		unkeyed = "CREATE TABLE locks (lock_id text" + rest + ", note text);"
		lax     = "CREATE COLLATION lax (provider = icu, locale = 'und-u-ks-level1', deterministic = false);"
	)

	type test struct {
		name, ddl string
		quick     bool
	}

	tests := []test{
		{"six columns", six, true},
		{"three columns", three, true},
		{"the database's collation", "CREATE TABLE locks (lock_id text PRIMARY KEY" + rest + ")", true},
		{"varchar", "CREATE TABLE locks (lock_id varchar(40) PRIMARY KEY" + rest + ")", true},
		{"columns of the user's own", six + "ALTER TABLE locks ADD note jsonb, DROP owner, ADD owner text", true},
		{"a trigger", six + "CREATE TRIGGER t BEFORE UPDATE ON locks FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()", true},
		{"a unique index that has more in it", unkeyed + "CREATE UNIQUE INDEX ON locks (lock_id) INCLUDE (note)", true},

		{"no table", "", false},
		{"no index", unkeyed, false},
		{"no unique index", unkeyed + "CREATE INDEX ON locks (lock_id)", false},
		{"an index on part of the rows", unkeyed + "CREATE UNIQUE INDEX ON locks (lock_id) WHERE note IS NULL", false},
		{"an index of two columns", unkeyed + "CREATE UNIQUE INDEX ON locks (lock_id, note)", false},
		{"an index on another column", unkeyed + "CREATE UNIQUE INDEX ON locks (note)", false},
		{"an index on what is computed", unkeyed + "CREATE UNIQUE INDEX ON locks (lower(lock_id))", false},
		{"an index that is checked late", unkeyed + "ALTER TABLE locks ADD UNIQUE (lock_id) DEFERRABLE", false},
		{"a constraint by equality", unkeyed + "ALTER TABLE locks ADD EXCLUDE (lock_id WITH =)", false},
		{"an index that isn't valid", unkeyed + "CREATE UNIQUE INDEX i ON locks (lock_id); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'i'::regclass", false},
		{"an index by a lax collation", lax + unkeyed + "CREATE UNIQUE INDEX ON locks (lock_id COLLATE lax)", false},
		{"a column of a lax collation", lax + "CREATE TABLE locks (lock_id text COLLATE lax PRIMARY KEY" + rest + ")", false},
		{"an owner of a lax collation", lax + three + "ALTER TABLE locks ADD owner text COLLATE lax, ADD acquired_at timestamptz, ADD contended_until timestamptz", false},
		{"an operator class of the user's own", unkeyed + `CREATE FUNCTION odd(text, text) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT bttextcmp(lower($1), lower($2))';
			CREATE OPERATOR CLASS odd FOR TYPE text USING btree AS OPERATOR 3 =, FUNCTION 1 odd(text, text);
			CREATE UNIQUE INDEX ON locks (lock_id odd)`, false},
		{"a second index", six + "CREATE UNIQUE INDEX ON locks (owner)", false},
		{"a first index that isn't that on the id", unkeyed + "CREATE UNIQUE INDEX ON locks (note); CREATE UNIQUE INDEX ON locks (lock_id)", false},
		{"a key with another column", six + "ALTER TABLE locks ADD UNIQUE (lock_id, expires_at)", false},
		{"a domain", "CREATE DOMAIN id AS text; CREATE TABLE locks (lock_id id PRIMARY KEY" + rest + ")", false},
		{"a column that is computed", three + "ALTER TABLE locks ADD owner text GENERATED ALWAYS AS ('x') STORED, ADD acquired_at timestamptz, ADD contended_until timestamptz", false},
		{"a token by a sequence", "CREATE TABLE locks (lock_id text PRIMARY KEY, generation bigint GENERATED ALWAYS AS IDENTITY, expires_at timestamptz)", false},
		{"an owner always", three + "ALTER TABLE locks ADD owner text NOT NULL, ADD acquired_at timestamptz, ADD contended_until timestamptz", false},
		{"unlogged", six + "ALTER TABLE locks SET UNLOGGED", false},
		{"partitions", "CREATE TABLE locks (lock_id text PRIMARY KEY" + rest + ") PARTITION BY HASH (lock_id)", false},
		{"a child", six + "CREATE TABLE child () INHERITS (locks)", false},
		{"a rule", six + "CREATE RULE r AS ON UPDATE TO locks DO INSTEAD NOTHING", false},
		{"row-level security", six + "ALTER TABLE locks ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", false},
	}

	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			u := newDatabase(t).String()
			admin := contract.Open(t, "postgres", u) // takes several statements in one text
			contract.Exec(t, admin, c.ddl)

			for _, driver := range []string{"pgx", "postgres"} {
				s := store.New(contract.Open(t, driver, u), store.Table{Schema: "public", Name: "locks"}, nil)

				if quick, thorough := store.Looks(t.Context(), s); (quick != "") != c.quick || c.quick && quick != thorough {
					t.Errorf("%s: the quick look says %q, the other %q", driver, quick, thorough)
				}
			}
		})
	}

	t.Run("an odd DateStyle", func(t *testing.T) {
		u := newDatabase(t)
		contract.Exec(t, contract.Open(t, "postgres", u.String()), six)

		q := u.Query()
		q.Set("DateStyle", "German")
		u.RawQuery = q.Encode()

		s := store.New(contract.Open(t, "pgx", u.String()), store.Table{Schema: "public", Name: "locks"}, nil)

		if quick, thorough := store.Looks(t.Context(), s); quick == "" || quick != thorough {
			t.Errorf("the quick look says %q, the other %q", quick, thorough)
		}
	})

	t.Run("no timeline", func(t *testing.T) {
		s, db, _ := newTimelined(t, "pgx")
		refuseCall(t, db, "pg_current_wal_insert_lsn() RETURNS pg_lsn", "55000")

		if quick, _ := store.Looks(t.Context(), s); quick != "" {
			t.Errorf("the quick look says %q", quick)
		}
	})
}
