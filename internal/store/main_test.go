package store_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"go.uber.org/goleak"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
	"github.com/ismurov/pglocker/internal/tmpfs"
	"github.com/ismurov/pglocker/pgtesting"
)

// databases are on the server of CI_DATABASE_URL, or on a throwaway one.
var databases *pgtesting.TestInstance

func TestMain(m *testing.M) {
	tmpfs.Use()

	databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
		DriverName:  "pgx",
		DatabaseURL: os.Getenv("CI_DATABASE_URL"),
		// Many tests run at once, and some open connections until they can't. Settings that make plans
		// look costly would have every statement compiled.
		ServerOptions: []pgtesting.ServerOption{
			pgtesting.WithSetting("max_connections", "1000"), pgtesting.WithSetting("jit", "off"),
		},
	})

	// Most tests wait, for a lock, a lease or the server.
	flag.Parse()

	if n := flag.Lookup("test.parallel"); n.Value.String() == n.DefValue {
		_ = n.Value.Set("4") // it is a number
	}

	code := m.Run()

	if os.Getenv("CI_DATABASE_URL") != "" {
		kept.drop()
	}

	databases.MustClose()

	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)

		code = 1
	}

	os.Exit(code)
}

// keeper keeps databases for the next test: to make and to drop one costs more than most tests.
type keeper struct {
	// first sees to functions, the fingerprint of PostgreSQL's own in a new database.
	first     sync.Once
	functions string

	// mu guards what follows.
	mu        sync.Mutex
	free, all []*url.URL
}

var kept keeper

// newDatabase returns the URL of an empty database. It is for tests that leave behind schemas, settings
// of the database, and functions of pg_catalog that they have changed. Others use databases.
func newDatabase(tb testing.TB) *url.URL {
	tb.Helper()

	u := kept.take()
	if u == nil {
		u = databases.NewDatabaseWithCleanup(tb, false)
		kept.add(u)
		kept.first.Do(func() {
			db, err := sql.Open("pgx", u.String())
			if err != nil {
				tb.Fatal(err)
			}
			defer func() { _ = db.Close() }()

			if kept.functions, err = functions(context.Background(), db); err != nil {
				tb.Fatal(err)
			}
		})
	}

	tb.Cleanup(func() {
		if err := empty(u); err != nil {
			tb.Logf("the database is not used again: %v", err)
		} else {
			kept.put(u)
		}
	})

	return new(*u)
}

func (k *keeper) take() (u *url.URL) {
	k.mu.Lock()
	defer k.mu.Unlock()

	if n := len(k.free); n > 0 {
		u, k.free = k.free[n-1], k.free[:n-1]
	}

	return u
}

func (k *keeper) add(u *url.URL) {
	k.mu.Lock()
	defer k.mu.Unlock()

	k.all = append(k.all, u)
}

func (k *keeper) put(u *url.URL) {
	k.mu.Lock()
	defer k.mu.Unlock()

	k.free = append(k.free, u)
}

// drop drops all databases, from a server that goes on.
func (k *keeper) drop() {
	db, err := sql.Open("pgx", os.Getenv("CI_DATABASE_URL"))
	if err != nil {
		return
	}
	defer func() { _ = db.Close() }()

	for _, u := range k.all {
		if _, err := db.ExecContext(context.Background(), fmt.Sprintf(`DROP DATABASE %q WITH (FORCE)`, strings.TrimPrefix(u.Path, "/"))); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// sqlEmpty makes a database as a new one is.
const sqlEmpty = `DO $$
DECLARE
    schema text;
BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid();
    PERFORM set_config('lock_timeout', '5s', true);

    FOR schema IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', schema);
    END LOOP;

    CREATE SCHEMA public;
    GRANT USAGE ON SCHEMA public TO PUBLIC;
    IF current_setting('server_version_num')::int < 150000 THEN
        GRANT CREATE ON SCHEMA public TO PUBLIC;
    END IF;

    EXECUTE format('ALTER DATABASE %I RESET ALL', current_database());
END $$`

// sqlFunctions is a fingerprint of PostgreSQL's own functions.
const sqlFunctions = `SELECT md5(string_agg(concat(p.oid, p.proname, p.proacl, p.prosrc), ',' ORDER BY p.oid))
	FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = 'pg_catalog'::regnamespace`

func functions(ctx context.Context, db *sql.DB) (fingerprint string, err error) {
	err = db.QueryRowContext(ctx, sqlFunctions).Scan(&fingerprint)

	return fingerprint, err
}

func empty(u *url.URL) error {
	db, err := sql.Open("pgx", u.String())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()

	ctx := context.Background()

	if now, err := functions(ctx, db); err != nil || now != kept.functions {
		return errors.Join(errors.New("its functions were changed"), err)
	}

	_, err = db.ExecContext(ctx, sqlEmpty)

	return err
}

// table is where the tests' locks are.
var table = store.Table{Schema: "pglocker", Name: "lock_statuses"}

// eachDriver runs a test once for each driver.
func eachDriver(t *testing.T, test func(t *testing.T, driver string)) {
	for _, driver := range []string{"pgx", "postgres"} {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			test(t, driver)
		})
	}
}

// newStore returns a store on a new database with the six-column table, and the
// handle it is on.
func newStore(t *testing.T, driver string) (*store.Store, *sql.DB) {
	t.Helper()

	db := contract.Open(t, driver, newDatabase(t).String())
	if err := store.Migrate(t.Context(), db, table, nil); err != nil {
		t.Fatal(err)
	}

	return store.New(db, table, nil), db
}
