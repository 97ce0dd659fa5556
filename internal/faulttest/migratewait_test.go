package faulttest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// TestMigrateSaysWhatItWaitsFor: a migration that can't get its lock names the holder, in the log
// while it waits and in its error. It goes on when the lock is free.
func TestMigrateSaysWhatItWaitsFor(t *testing.T) {
	t.Parallel()

	const key = 8099561680514278770 // of pglocker's migrations

	for _, test := range []struct {
		name string
		hold string
		// prepared: it is held by a prepared transaction.
		prepared bool
		// holder is how it is named.
		words []string
	}{
		{"a dump", "LOCK TABLE pglocker.lock_statuses IN ACCESS SHARE MODE", false, []string{"a lock on the table", "pid ", "dumper"}},
		{"a row", "UPDATE pglocker.lock_statuses SET generation = 7", true, []string{"a lock on the table", "prepared transaction", "forgotten", "pg_prepared_xacts"}},
		{"another migration", fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", key), false, []string{"another migration", "pid ", "dumper"}},
		{"another migration, prepared", fmt.Sprintf("SELECT pg_advisory_xact_lock(%d)", key), true, []string{"another migration", "prepared transaction", "forgotten"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			contract.EachDriver(t, func(t *testing.T, driver string) {
				t.Parallel()

				databaseURL := contract.NewDatabase(t)
				if test.prepared {
					databaseURL = preparing(t, databaseURL)
				}

				admin := contract.Open(t, "pgx", databaseURL)

				contract.MakeTable(t, admin, contract.ThreeColumns)
				contract.Exec(t, admin, "INSERT INTO pglocker.lock_statuses VALUES ('a', 1, now())")

				release := hold(t, admin, test.hold, test.prepared)

				var log contract.Page

				db := contract.Open(t, driver, databaseURL)
				cfg := &pglocker.Config{Logger: slog.New(slog.NewTextHandler(&log, nil))}

				migrate := func(ctx context.Context) <-chan error {
					done := make(chan error, 1)
					go func() { done <- pglocker.MigrateDB(ctx, db, cfg) }()

					return done
				}

				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()

				done := migrate(ctx)
				contract.Await(t, "a line in the log", func() bool { return log.String() != "" })
				cancel()

				err := contract.Receive(t, "MigrateDB returns", done)
				if !errors.Is(err, context.Canceled) || errors.Is(err, pglocker.ErrUnknownOutcome) {
					t.Errorf("MigrateDB: %v, want context.Canceled", err)
				}

				for _, word := range test.words {
					if err != nil && !strings.Contains(err.Error(), word) {
						t.Errorf("MigrateDB: %v, want %q in it", err, word)
					}

					if !strings.Contains(log.String(), word) {
						t.Errorf("logged: %s, want %q in it", log.String(), word)
					}
				}

				// Also where the first attempt has not ended.
				ctx, cancel = context.WithCancel(t.Context())
				defer cancel()

				done = migrate(ctx)
				contract.Await(t, "an attempt that waits", func() bool { return contract.Query[bool](t, admin, attemptWaits) })
				cancel()

				err = contract.Receive(t, "MigrateDB returns", done)
				for _, word := range test.words {
					if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), word) {
						t.Errorf("MigrateDB: %v, want context.Canceled and %q", err, word)
					}
				}

				// One line says it for a minute, however many attempts there are.
				logged := log.String()
				done = migrate(t.Context())

				contract.Await(t, "a line in the log", func() bool { return log.String() != logged })
				attempts := contract.Query[int64](t, admin, attemptsMade)
				contract.Await(t, "more attempts", func() bool {
					return contract.Query[int64](t, admin, attemptsMade) > attempts+3
				})

				release()

				if err := contract.Receive(t, "MigrateDB returns", done); err != nil {
					t.Errorf("MigrateDB afterwards: %v", err)
				}

				if n := strings.Count(strings.TrimPrefix(log.String(), logged), "\n"); n != 1 {
					t.Errorf("%d lines, want one:\n%s", n, log.String())
				}
			})
		})
	}
}

// preparing returns the database, or another on a server of the test's own where this one doesn't
// prepare transactions.
func preparing(t *testing.T, databaseURL string) string {
	t.Helper()

	if contract.Query[string](t, contract.Open(t, "pgx", databaseURL), "SHOW max_prepared_transactions") != "0" {
		return databaseURL
	}

	return contract.StartServer(t, pgtesting.WithSetting("max_prepared_transactions", "5")).URL()
}

// attemptWaits reports whether a session waits for a lock in the database.
const attemptWaits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock')"

// attemptsMade counts the transactions that were rolled back in the database.
const attemptsMade = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()"

// hold runs a statement in a transaction that stays open, or is prepared, until it is released.
func hold(t *testing.T, db *sql.DB, text string, prepared bool) (release func()) {
	t.Helper()

	conn, err := db.Conn(t.Context())
	contract.Must(t, err)
	t.Cleanup(func() { _ = conn.Close() }) // back to the pool

	exec := func(text string) {
		_, err := conn.ExecContext(context.Background(), text)
		contract.Must(t, err)
	}

	exec("SET application_name = 'dumper'")
	exec("BEGIN")
	exec(text)

	end := "ROLLBACK"
	if prepared {
		name := "forgotten_" + contract.Query[string](t, db, "SELECT current_database()")
		exec("PREPARE TRANSACTION '" + name + "'")

		end = "ROLLBACK PREPARED '" + name + "'"
	}

	release = sync.OnceFunc(func() { exec(end) })
	t.Cleanup(release)

	return release
}
