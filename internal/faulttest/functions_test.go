package faulttest

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestFunctionsAskForLittle: the functions need what locks need: USAGE on the schema and SELECT, INSERT and UPDATE
// on the table. Without one of these, and where a policy hides the row, they fail with 42501.
func TestFunctionsAskForLittle(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		ctx := t.Context()
		databaseURL := contract.NewDatabase(t)
		admin := contract.Open(t, driver, databaseURL)
		contract.Must(t, pglocker.MigrateDB(ctx, admin, &pglocker.Config{}))

		role, db := newRole(t, admin, driver, databaseURL)
		c := contract.NewSQLClient(db, &pglocker.Config{})

		for _, grant := range []string{
			"USAGE ON SCHEMA pglocker", "SELECT ON pglocker.lock_statuses", "UPDATE ON pglocker.lock_statuses",
			"INSERT ON pglocker.lock_statuses",
		} {
			if g, err := c.Acquire(ctx, "a", time.Minute, "me"); contract.SQLState(err) != "42501" {
				t.Errorf("acquire_lock without %s: %+v, %v, want SQLSTATE 42501", grant, g, err)
			}

			contract.Exec(t, admin, "GRANT "+grant+" TO "+role)
		}

		for range 2 { // by INSERT, by UPDATE
			g, err := c.Acquire(ctx, "a", time.Minute, "me")
			if err != nil || !g.Acquired {
				t.Fatalf("acquire_lock: %+v, %v", g, err)
			}

			if _, held, err := c.Renew(ctx, "a", g.Token, time.Minute); err != nil || !held {
				t.Errorf("renew_lock: %t, %v", held, err)
			}

			tx, err := db.BeginTx(ctx, nil)
			contract.Must(t, err)
			contract.Must(t, c.AssertHeld(ctx, tx, "a", g.Token))
			contract.Must(t, tx.Commit())

			if held, err := c.Release(ctx, "a", g.Token); err != nil || !held {
				t.Errorf("release_lock: %t, %v", held, err)
			}
		}

		// They act as the caller, whoever made them.
		contract.Exec(t, admin, "ALTER TABLE pglocker.lock_statuses ENABLE ROW LEVEL SECURITY")
		contract.Exec(t, admin, "CREATE POLICY most ON pglocker.lock_statuses TO "+role+" USING (lock_id <> 'a')")

		if g, err := c.Acquire(ctx, "a", time.Minute, "me"); contract.SQLState(err) != "42501" {
			t.Errorf("acquire_lock of a hidden row: %+v, %v, want SQLSTATE 42501", g, err)
		}

		if g, err := c.Acquire(ctx, "b", time.Minute, "me"); err != nil || !g.Acquired {
			t.Errorf("acquire_lock of a row that isn't hidden: %+v, %v", g, err)
		}
	})
}

// TestMigrateWithoutTheRight: a role that may use the table, and make nothing, goes without functions that are
// missing. MigrateDB needs no right where all are in place.
func TestMigrateWithoutTheRight(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		databaseURL := contract.NewDatabase(t)
		admin := contract.Open(t, driver, databaseURL)
		contract.Must(t, pglocker.MigrateDB(t.Context(), admin, &pglocker.Config{}))

		role, db := newRole(t, admin, driver, databaseURL)

		migrate := func(says string) {
			t.Helper()

			var log bytes.Buffer

			cfg := &pglocker.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}
			contract.Must(t, pglocker.MigrateDB(t.Context(), db, cfg))

			if got := log.String(); (got == "") != (says == "") || !strings.Contains(got, says) {
				t.Errorf("the log has %q, want %q", got, says)
			}
		}

		migrate("")
		contract.Exec(t, admin, "DROP FUNCTION pglocker.renew_lock(text, bigint, interval)")
		migrate("lacks CREATE on the schema")
		contract.Exec(t, admin, "GRANT USAGE, CREATE ON SCHEMA pglocker TO "+role)
		contract.Exec(t, admin, "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC")
		migrate("lacks USAGE on the language plpgsql")
		contract.Exec(t, admin, "GRANT USAGE ON LANGUAGE plpgsql TO PUBLIC")
		migrate("")
		migrate("")

		// An older function of another role.
		contract.Exec(t, admin, `CREATE OR REPLACE FUNCTION pglocker.release_lock(lock_id text, token bigint) RETURNS boolean
			LANGUAGE sql AS 'SELECT true -- github.com/ismurov/pglocker'`)
		migrate("the function release_lock is postgres's")
	})
}
