package faulttest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// newRole makes a role that may log in and has no privilege. It returns its name and a handle of
// it on the database.
func newRole(t *testing.T, admin *sql.DB, driver, databaseURL string) (string, *sql.DB) {
	t.Helper()

	role := "pglocker_test_" + strings.ToLower(rand.Text())
	contract.Exec(t, admin, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD 'secret'", role))
	t.Cleanup(func() {
		for _, text := range []string{"DROP OWNED BY " + role, "DROP ROLE " + role} {
			if _, err := admin.ExecContext(context.Background(), text); err != nil {
				t.Error(err)
			}
		}
	})

	u, err := url.Parse(databaseURL)
	contract.Must(t, err)

	u.User = url.UserPassword(role, "secret")

	return role, contract.Open(t, driver, u.String())
}

// deniedWith fails the test unless the error is ErrPermissionDenied and has all of the words, and
// none of those that begin with an exclamation mark.
func deniedWith(t *testing.T, what string, err error, words ...string) {
	t.Helper()

	if !errors.Is(err, pglocker.ErrPermissionDenied) {
		t.Errorf("%s: %v, want ErrPermissionDenied", what, err)

		return
	}

	for _, word := range words {
		absent, not := strings.CutPrefix(word, "!")
		if strings.Contains(err.Error(), absent) == not {
			t.Errorf("%s: %v, want %q in it", what, err, word)
		}
	}
}

// TestMigrateDenied: MigrateDB names what the role lacks, and the statement that mends it does.
func TestMigrateDenied(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		ctx := t.Context()
		databaseURL := contract.NewDatabase(t)
		admin := contract.Open(t, driver, databaseURL)
		database := contract.Query[string](t, admin, "SELECT current_database()")
		role, db := newRole(t, admin, driver, databaseURL)

		t.Cleanup(func() { // which DROP OWNED leaves
			_, err := admin.ExecContext(context.Background(), fmt.Sprintf(`REVOKE ALL ON DATABASE %q FROM %s`, database, role))
			if err != nil {
				t.Error(err)
			}
		})

		grant := fmt.Sprintf("GRANT CREATE ON DATABASE %s TO %s", database, role)
		err := pglocker.MigrateDB(ctx, db, &pglocker.Config{})
		deniedWith(t, "no schema", err, role, "CREATE on the database", grant, "!INSERT")

		contract.Exec(t, admin, "CREATE SCHEMA pglocker")
		err = pglocker.MigrateDB(ctx, db, &pglocker.Config{})
		deniedWith(t, "no table", err, role, "CREATE on the schema", "GRANT USAGE ON SCHEMA pglocker TO "+role,
			"GRANT CREATE ON SCHEMA pglocker TO "+role, "!DATABASE", "!INSERT")

		contract.Exec(t, admin, "CREATE TABLE pglocker.lock_statuses ("+contract.ThreeColumns+")")
		contract.Exec(t, admin, "GRANT ALL ON SCHEMA pglocker TO "+role)
		contract.Exec(t, admin, "GRANT ALL ON pglocker.lock_statuses TO "+role)
		err = pglocker.MigrateDB(ctx, db, &pglocker.Config{})
		deniedWith(t, "an older table of another's", err, role, "ownership", "postgres", "!GRANT INSERT", "!SCHEMA")

		contract.Exec(t, admin, "DROP SCHEMA pglocker CASCADE")
		contract.Exec(t, admin, strings.Replace(grant, database, `"`+database+`"`, 1))
		contract.Must(t, pglocker.MigrateDB(ctx, db, &pglocker.Config{}))
	})
}

// TestLackingPrivileges: what is missing is named, and nothing that is there.
func TestLackingPrivileges(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		ctx := t.Context()
		databaseURL := contract.NewDatabase(t)
		admin := contract.Open(t, driver, databaseURL)
		contract.Must(t, pglocker.MigrateDB(ctx, admin, &pglocker.Config{}))

		role, db := newRole(t, admin, driver, databaseURL)
		locker, err := pglocker.New(db, &pglocker.Config{})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

		acquire := func() error {
			_, err := locker.AcquireLock(ctx, "a", time.Minute)

			return err
		}

		if err := pglocker.MigrateDB(ctx, db, &pglocker.Config{}); err != nil {
			t.Errorf("MigrateDB of what is in place, without any privilege: %v", err)
		}

		contract.Exec(t, admin, "GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO "+role)
		deniedWith(t, "no USAGE", acquire(), "USAGE on the schema", "GRANT USAGE ON SCHEMA pglocker TO "+role, "!UPDATE on the table")

		contract.Exec(t, admin, "GRANT USAGE ON SCHEMA pglocker TO "+role)
		contract.Exec(t, admin, "REVOKE INSERT ON pglocker.lock_statuses FROM "+role)
		deniedWith(t, "no INSERT", acquire(), "INSERT on the table", "GRANT INSERT ON pglocker.lock_statuses TO "+role,
			"!USAGE", "!UPDATE on the table", "!SELECT on the table")

		// The statement that the error shows is one.
		_, mend, _ := strings.Cut(acquire().Error(), "(")
		mend, _, _ = strings.Cut(mend, ")")
		contract.Exec(t, admin, mend)
		_, err = locker.AcquireLock(ctx, "first", time.Minute)
		contract.Must(t, err)

		// INSERT and UPDATE of the columns do as well. SELECT doesn't: it is of ctid too.
		contract.Exec(t, admin, "REVOKE ALL ON pglocker.lock_statuses FROM "+role)

		for _, privilege := range []string{"SELECT", "INSERT", "UPDATE"} {
			contract.Exec(t, admin, fmt.Sprintf(`GRANT %s (lock_id, generation, expires_at, owner, acquired_at, contended_until)
				ON pglocker.lock_statuses TO %s`, privilege, role))
		}

		deniedWith(t, "SELECT of the columns", locker.Do(ctx, "b", 2*time.Second, 10*time.Millisecond,
			func(ctx context.Context) error {
				<-ctx.Done()

				return context.Cause(ctx)
			}), "SELECT on the table", "!INSERT", "!UPDATE on the table")

		contract.Exec(t, admin, "GRANT SELECT ON pglocker.lock_statuses TO "+role)
		contract.Must(t, usesLocks(ctx, locker))

		// A trigger that may do less than the role is not the role's fault.
		contract.Exec(t, admin, "CREATE TABLE pglocker.audit ()")
		contract.Exec(t, admin, `CREATE FUNCTION pglocker.note() RETURNS trigger LANGUAGE plpgsql AS
			'BEGIN INSERT INTO pglocker.audit DEFAULT VALUES; RETURN new; END'`)
		contract.Exec(t, admin, "CREATE TRIGGER note BEFORE INSERT ON pglocker.lock_statuses FOR EACH ROW EXECUTE FUNCTION pglocker.note()")

		_, err = locker.AcquireLock(ctx, "another", time.Minute)
		deniedWith(t, "a trigger", err, "audit", "all privileges on", "!GRANT")
	})
}

// TestRowSecurity: row-level security that leaves the role without a row is named at the first
// use, where PostgreSQL itself says nothing. With policies for the role, locks work; a row that
// they hide is not taken for held.
func TestRowSecurity(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		ctx := t.Context()
		databaseURL := contract.NewDatabase(t)
		admin := contract.Open(t, driver, databaseURL)
		owners := contract.NewLocker(t, driver, databaseURL)
		role, db := newRole(t, admin, driver, databaseURL)

		created, err := owners.CreateLock(ctx, "hidden")
		contract.Must(t, err)
		contract.Exec(t, admin, "GRANT USAGE ON SCHEMA pglocker TO "+role)
		contract.Exec(t, admin, "GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO "+role)
		contract.Exec(t, admin, "ALTER TABLE pglocker.lock_statuses ENABLE ROW LEVEL SECURITY")

		newLocker := func() *pglocker.Locker {
			locker, err := pglocker.New(db, &pglocker.Config{})
			contract.Must(t, err)
			t.Cleanup(func() { contract.CloseLocker(t, locker) })

			return locker
		}

		for _, lacking := range []struct{ policy, commands string }{
			{"", "SELECT, INSERT, UPDATE"},
			{"CREATE POLICY looks ON pglocker.lock_statuses FOR SELECT USING (true)", "INSERT, UPDATE"},
			{"CREATE POLICY others ON pglocker.lock_statuses TO pg_monitor USING (true)", "INSERT, UPDATE"},
			{"CREATE POLICY narrows ON pglocker.lock_statuses AS RESTRICTIVE USING (true)", "INSERT, UPDATE"},
			{"CREATE POLICY writes ON pglocker.lock_statuses FOR UPDATE USING (true)", "INSERT"},
		} {
			if lacking.policy != "" {
				contract.Exec(t, admin, lacking.policy)
			}

			locker := newLocker()
			eachVerb(t, locker, created, func(verb string, err error) {
				deniedWith(t, verb+" without a policy for "+lacking.commands, err, "row-level security", "the role "+lacking.commands, "!GRANT")
			})
		}

		contract.Exec(t, admin, "CREATE POLICY makes ON pglocker.lock_statuses FOR INSERT TO "+role+" WITH CHECK (lock_id <> 'refused')")
		contract.Must(t, usesLocks(ctx, newLocker()))
		contract.Must(t, usesLocks(ctx, owners)) // they don't apply to the owner

		_, err = newLocker().AcquireLock(ctx, "refused", time.Minute)
		deniedWith(t, "a policy's check", err, "row-level security", "!GRANT")

		// A policy that shows less than there is.
		contract.Exec(t, admin, "ALTER POLICY looks ON pglocker.lock_statuses USING (lock_id <> 'hidden')")
		_, err = newLocker().AcquireLock(ctx, "hidden", time.Minute)
		deniedWith(t, "AcquireLock of a row that isn't shown", err, "row-level security", `"hidden"`)
		_, err = newLocker().CreateLock(ctx, "hidden")
		deniedWith(t, "CreateLock of a row that isn't shown", err, "row-level security", `"hidden"`)

		contract.Exec(t, admin, "ALTER POLICY looks ON pglocker.lock_statuses USING (true)")
		contract.Exec(t, admin, "ALTER POLICY writes ON pglocker.lock_statuses USING (lock_id <> 'hidden')")

		locker := newLocker()
		_, err = locker.AcquireLock(ctx, "hidden", time.Minute)
		deniedWith(t, "AcquireLock of a row that isn't to be changed", err, "row-level security", `"hidden"`)
		_, err = locker.RefreshLock(ctx, created, time.Minute)
		deniedWith(t, "RefreshLock of a row that isn't to be changed", err, "row-level security", `"hidden"`)

		// The table's owner is held to it where it is forced.
		contract.Exec(t, admin, "CREATE SCHEMA own AUTHORIZATION "+role)
		cfg := &pglocker.Config{Scheme: "own"}
		own, err := pglocker.NewWithMigrateDB(ctx, db, cfg)
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, own) })

		contract.Exec(t, db, "ALTER TABLE own.lock_statuses ENABLE ROW LEVEL SECURITY")
		contract.Must(t, usesLocks(ctx, own))
		contract.Exec(t, db, "ALTER TABLE own.lock_statuses FORCE ROW LEVEL SECURITY")

		forced, err := pglocker.New(db, cfg)
		contract.Must(t, err)

		_, err = forced.AcquireLock(ctx, "a", time.Minute)
		deniedWith(t, "forced on its owner", err, "row-level security")
	})
}
