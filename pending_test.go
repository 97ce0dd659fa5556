package pglocker_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestPendingMigrations: it names what is missing, to a role without any privilege too, and running that
// leaves nothing for MigrateDB to do.
func TestPendingMigrations(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		name string
		// before prepares a database. after changes it once MigrateDB and MigrateHistory have run.
		before, after string
		// of is what each of the pending statements begins with.
		of []string
	}{
		{name: "an empty database", before: "-- nothing", of: []string{
			"CREATE SCHEMA", "CREATE TABLE", "ALTER TABLE", "CREATE OR REPLACE FUNCTION", "CREATE OR REPLACE FUNCTION",
			"CREATE OR REPLACE FUNCTION", "CREATE OR REPLACE FUNCTION",
		}},
		{name: "nothing is missing"},
		{name: "a storage parameter", after: "ALTER TABLE pglocker.lock_statuses RESET (fillfactor)", of: []string{"ALTER TABLE"}},
		{name: "columns", after: "ALTER TABLE pglocker.lock_statuses DROP COLUMN owner", of: []string{"ALTER TABLE"}},
		{
			name: "an older function", of: []string{"CREATE OR REPLACE FUNCTION"},
			after: `CREATE OR REPLACE FUNCTION pglocker.assert_held(lock_id text, token bigint) RETURNS void LANGUAGE plpgsql
				AS 'BEGIN /* github.com/ismurov/pglocker, in an older version */ END'`,
		},
		{
			name: "a function of others",
			after: `CREATE OR REPLACE FUNCTION pglocker.assert_held(lock_id text, token bigint) RETURNS void LANGUAGE plpgsql
				AS 'BEGIN END'`,
		},
		{
			name: "a trigger of the history", after: "DROP TRIGGER pglocker_history_delete ON pglocker.lock_statuses",
			of: []string{
				"CREATE OR REPLACE FUNCTION", "REVOKE", "DROP TRIGGER", "CREATE TRIGGER", "DROP TRIGGER", "CREATE TRIGGER",
				"DROP TRIGGER", "CREATE TRIGGER",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()

			contract.EachDriver(t, func(t *testing.T, driver string) {
				ctx := t.Context()
				db := contract.Open(t, driver, contract.NewDatabase(t))

				if test.before == "" {
					contract.Must(t, pglocker.MigrateDB(ctx, db, &pglocker.Config{}))
					contract.Must(t, pglocker.MigrateHistory(ctx, db, &pglocker.Config{}))
				}

				contract.Exec(t, db, test.after)

				db.SetMaxOpenConns(1)
				contract.Exec(t, db, "SET ROLE pg_signal_backend") // it has no privilege on any table

				pending, err := pglocker.PendingMigrations(ctx, db, &pglocker.Config{})
				contract.Must(t, err)
				contract.Exec(t, db, "RESET ROLE")

				if !begin(pending, test.of) {
					t.Errorf("pending is\n%s\nwant, by their beginnings, %q", strings.Join(pending, ";\n"), test.of)
				}

				for _, statement := range pending {
					contract.Exec(t, db, statement)
				}

				again, err := pglocker.PendingMigrations(ctx, db, &pglocker.Config{})
				if err != nil || len(again) > 0 {
					t.Errorf("still pending: %q, %v", again, err)
				}
			})
		})
	}
}

func begin(texts, with []string) bool {
	if len(texts) != len(with) {
		return false
	}

	for i, text := range texts {
		if !strings.HasPrefix(text, with[i]) {
			return false
		}
	}

	return true
}

// TestPendingMigrationsRefused: a table that can't hold locks is named, and so is bad input.
func TestPendingMigrationsRefused(t *testing.T) {
	t.Parallel()

	ctx := t.Context()
	db := contract.Open(t, "pgx", contract.NewDatabase(t))
	contract.MakeTable(t, db, "lock_id TEXT PRIMARY KEY, generation INT, expires_at TIMESTAMPTZ")

	if _, err := pglocker.PendingMigrations(ctx, db, &pglocker.Config{}); !errors.Is(err, pglocker.ErrInvalidTable) {
		t.Errorf("a column of another type: %v, want ErrInvalidTable", err)
	}

	if _, err := pglocker.PendingMigrations(ctx, db, nil); !errors.Is(err, pglocker.ErrConfigIsNil) {
		t.Errorf("no config: %v, want ErrConfigIsNil", err)
	}

	if _, err := pglocker.PendingMigrations(ctx, nil, &pglocker.Config{}); !errors.Is(err, pglocker.ErrDBIsNil) {
		t.Errorf("no database: %v, want ErrDBIsNil", err)
	}
}
