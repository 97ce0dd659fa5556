package pglocker_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestDistributedWithoutCitus: what only Citus can do is refused by name, and nothing is made.
func TestDistributedWithoutCitus(t *testing.T) {
	t.Parallel()

	db := contract.Open(t, "pgx", contract.NewDatabase(t))
	cfg := &pglocker.Config{Distributed: true}

	if err := pglocker.MigrateDB(t.Context(), db, cfg); !errors.Is(err, pglocker.ErrUnsupportedServer) || !strings.Contains(err.Error(), "citus") {
		t.Errorf("MigrateDB: %v, want ErrUnsupportedServer", err)
	}

	if _, err := pglocker.PendingMigrations(t.Context(), db, cfg); !errors.Is(err, pglocker.ErrUnsupportedServer) {
		t.Errorf("PendingMigrations: %v, want ErrUnsupportedServer", err)
	}

	if n := contract.Query[int](t, db, "SELECT count(*) FROM pg_namespace WHERE nspname = 'pglocker'"); n != 0 {
		t.Error("MigrateDB made a schema")
	}
}

// TestCitusMigrate: MigrateDB distributes the table once, with the rows and tokens that it has, and without what
// doesn't work there.
func TestCitusMigrate(t *testing.T) {
	t.Parallel()

	const scheme = "pglocker_migrate"

	db := contract.Open(t, "pgx", citusURL(t))
	local, cfg := &pglocker.Config{Scheme: scheme}, &pglocker.Config{Scheme: scheme, Distributed: true}

	contract.Exec(t, db, "DROP SCHEMA IF EXISTS "+scheme+" CASCADE")
	contract.Must(t, pglocker.MigrateDB(t.Context(), db, local))

	// A lock of the table as it was outlives the change.
	locker := newCitusLocker(t, db, local)
	held, err := locker.TryLock(t.Context(), "held", time.Hour)
	contract.Must(t, err)

	pending, err := pglocker.PendingMigrations(t.Context(), db, cfg)
	contract.Must(t, err)

	if text := strings.Join(pending, "\n"); len(pending) != 5 || !strings.Contains(text, "DROP FUNCTION") ||
		!strings.Contains(pending[4], `create_distributed_table(E'"pglocker_migrate"."lock_statuses"', 'lock_id')`) {
		t.Errorf("pending: %s", text)
	}

	for range 2 {
		contract.Must(t, pglocker.MigrateDB(t.Context(), db, cfg))
	}

	contract.Must(t, held.Unlock(t.Context()))

	again, err := newCitusLocker(t, db, cfg).TryLock(t.Context(), "held", time.Hour)
	contract.Must(t, err)

	if again.Token() <= held.Token() {
		t.Errorf("token %d after %d", again.Token(), held.Token())
	}

	// A program that doesn't know that the table is distributed makes nothing that doesn't work there.
	contract.Must(t, pglocker.MigrateDB(t.Context(), db, local))

	for _, c := range []*pglocker.Config{local, cfg} {
		pending, err := pglocker.PendingMigrations(t.Context(), db, c)
		contract.Must(t, err)

		if len(pending) != 0 {
			t.Errorf("pending at the end: %s", pending)
		}

		if err := pglocker.MigrateHistory(t.Context(), db, c); !errors.Is(err, pglocker.ErrUnsupportedServer) {
			t.Errorf("MigrateHistory: %v, want ErrUnsupportedServer", err)
		}
	}

	if n := contract.Query[int](t, db, "SELECT count(*) FROM pg_proc WHERE pronamespace = $1::regnamespace", scheme); n != 0 {
		t.Errorf("%d functions", n)
	}

	if n := contract.Query[int](t, db, "SELECT count(DISTINCT nodeport) FROM citus_shards WHERE table_name = $1::regclass",
		scheme+".lock_statuses"); n < 2 {
		t.Errorf("the table is on %d servers", n)
	}
}

// TestCitusMigrateRefused: a table that can't be distributed by lock_id is refused by name.
func TestCitusMigrateRefused(t *testing.T) {
	t.Parallel()

	db := contract.Open(t, "pgx", citusURL(t))

	for scheme, test := range map[string]struct {
		prepare string
		want    error
	}{
		"pglocker_reference": {"SELECT create_reference_table('pglocker_reference.lock_statuses')", pglocker.ErrInvalidTable},
		"pglocker_history":   {"", pglocker.ErrUnsupportedServer},
	} {
		local, cfg := &pglocker.Config{Scheme: scheme}, &pglocker.Config{Scheme: scheme, Distributed: true}

		contract.Exec(t, db, "DROP SCHEMA IF EXISTS "+scheme+" CASCADE")
		contract.Must(t, pglocker.MigrateDB(t.Context(), db, local))

		if test.prepare == "" {
			contract.Must(t, pglocker.MigrateHistory(t.Context(), db, local))
		} else {
			contract.Exec(t, db, test.prepare)
		}

		if err := pglocker.MigrateDB(t.Context(), db, cfg); !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", scheme, err, test.want)
		}
	}
}
