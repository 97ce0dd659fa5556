package pglocker_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/migrations"
)

// TestMigrationFiles: the SQL under migrations and MigrateDB make the same table,
// and each can be run on what the other made.
func TestMigrationFiles(t *testing.T) {
	t.Parallel()

	const table = "pglocker.lock_statuses"

	runFiles := func(t *testing.T, db *sql.DB) {
		names, err := fs.Glob(migrations.FS, "*.sql")
		contract.Must(t, err)

		if len(names) == 0 {
			t.Fatal("no files are embedded")
		}

		for _, name := range names {
			text, err := fs.ReadFile(migrations.FS, name)
			contract.Must(t, err)
			contract.Exec(t, db, string(text))
		}
	}
	migrate := func(t *testing.T, db *sql.DB) {
		contract.Must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))
	}
	older := func(t *testing.T, db *sql.DB) {
		contract.MakeTable(t, db, contract.ThreeColumns)
	}

	var want []string

	for _, way := range []struct {
		name  string
		steps []func(*testing.T, *sql.DB)
	}{
		{"MigrateDB", []func(*testing.T, *sql.DB){migrate}},
		{"MigrateDB twice", []func(*testing.T, *sql.DB){migrate, migrate}},
		{"files", []func(*testing.T, *sql.DB){runFiles}},
		{"files twice", []func(*testing.T, *sql.DB){runFiles, runFiles}},
		{"MigrateDB, files", []func(*testing.T, *sql.DB){migrate, runFiles}},
		{"files, MigrateDB", []func(*testing.T, *sql.DB){runFiles, migrate}},
		{"an older table, MigrateDB", []func(*testing.T, *sql.DB){older, migrate}},
		{"an older table, files", []func(*testing.T, *sql.DB){older, runFiles}},
	} {
		db := contract.Open(t, "postgres", contract.NewDatabase(t)) // which takes many statements in one text

		for _, step := range way.steps {
			step(t, db)
		}

		switch got := contract.Described(t, db, table); {
		case want == nil:
			want = got
		case !slices.Equal(got, want):
			t.Errorf("%s makes\n%s\nwant\n%s", way.name, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	}

	// The table of the design: six columns, one index, HOT updates.
	for _, line := range []string{
		"column lock_id text collate C not null true default -",
		"column generation bigint collate - not null true default -",
		"column expires_at timestamp with time zone collate - not null true default -",
		"column owner text collate default not null false default -",
		"column acquired_at timestamp with time zone collate - not null false default -",
		"column contended_until timestamp with time zone collate - not null false default -",
		"constraint p PRIMARY KEY (lock_id)",
		"persistence p kind r",
		"storage fillfactor=50",
		"storage autovacuum_vacuum_scale_factor=0",
		"storage autovacuum_vacuum_cost_delay=0",
	} {
		if !slices.Contains(want, line) {
			t.Errorf("%q is not among\n%s", line, strings.Join(want, "\n"))
		}
	}

	if n := len(slices.DeleteFunc(slices.Clone(want), func(line string) bool { return !strings.HasPrefix(line, "function ") })); n != 4 {
		t.Errorf("%d functions, want 4", n)
	}

	if n := strings.Count(strings.Join(want, "\n"), "\nindex "); n != 1 {
		t.Errorf("%d indexes, want one: with others updates aren't HOT", n)
	}
}

// TestMigrateAtOnce: forty processes start at once on an empty database.
func TestMigrateAtOnce(t *testing.T) {
	t.Parallel()

	databaseURL := contract.NewDatabase(t)

	var (
		start = make(chan struct{})
		errs  = make(chan error, 40)
		done  sync.WaitGroup
	)

	for i := range cap(errs) {
		db := contract.Open(t, contract.Drivers[i%len(contract.Drivers)], databaseURL)
		contract.Must(t, db.PingContext(t.Context()))
		done.Go(func() {
			<-start
			errs <- pglocker.MigrateDB(t.Context(), db, &pglocker.Config{})
		})
	}

	close(start)
	done.Wait()
	close(errs)

	for err := range errs {
		if err != nil {
			t.Error(err)
		}
	}
}

// TestMigrateOlder: an older table gets what it lacks. Its rows stay as they are,
// and so does what its owner has set.
func TestMigrateOlder(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		ctx := t.Context()
		db := contract.Open(t, driver, contract.NewDatabase(t))
		cfg := &pglocker.Config{Scheme: pglocker.PublicScheme, Table: "locks"}

		contract.Exec(t, db, "CREATE TABLE locks ("+contract.ThreeColumns+", note text) WITH (fillfactor = 77, autovacuum_enabled = off)")
		contract.Exec(t, db, "INSERT INTO locks VALUES ('a', 41, now() + interval '1 hour', 'mine'), ('b', 7, now(), NULL)")

		rows := func() string {
			return contract.Query[string](t, db,
				"SELECT string_agg((lock_id, generation, expires_at, note, xmin)::text, ';' ORDER BY lock_id) FROM locks")
		}
		before := rows()

		contract.Must(t, pglocker.MigrateDB(ctx, db, cfg))

		if after := rows(); after != before {
			t.Errorf("rows were %s and are %s", before, after)
		}

		got := contract.Described(t, db, "public.locks")
		for _, line := range []string{
			"storage fillfactor=77", "storage autovacuum_enabled=off", "storage autovacuum_vacuum_scale_factor=0",
			"column owner text collate default not null false default -",
			"column contended_until timestamp with time zone collate - not null false default -",
			"column note text collate default not null false default -",
		} {
			if !slices.Contains(got, line) {
				t.Errorf("%q is not among\n%s", line, strings.Join(got, "\n"))
			}
		}

		locker, err := pglocker.New(db, cfg)
		contract.Must(t, err)

		if status, err := locker.GetLockStatus(ctx, "a"); err != nil || status.Generation != 41 {
			t.Errorf("%+v, %v, want generation 41", status, err)
		}

		if status, err := locker.AcquireLock(ctx, "b", time.Minute); err != nil || status.Owner == "" {
			t.Errorf("%+v, %v, want an owner", status, err)
		}
	})
}

// TestMigrateTakesNoLock: where everything is in place nothing is locked, not even
// what somebody else has locked against all.
func TestMigrateTakesNoLock(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		db := contract.Open(t, driver, contract.NewDatabase(t))
		contract.Must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))

		tx, err := db.BeginTx(t.Context(), nil)
		contract.Must(t, err)

		defer func() { contract.Must(t, tx.Rollback()) }()

		for _, text := range []string{
			"LOCK TABLE pglocker.lock_statuses IN ACCESS EXCLUSIVE MODE",
			"SELECT pg_advisory_xact_lock(8099561680514278770)", // and no other migration waits for it
		} {
			_, err = tx.ExecContext(t.Context(), text)
			contract.Must(t, err)
		}

		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()

		if err := pglocker.MigrateDB(ctx, db, &pglocker.Config{}); err != nil {
			t.Error(err)
		}

		// Where something is missing it waits for its turn, and gives up with its
		// context.
		ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()

		err = pglocker.MigrateDB(ctx, db, &pglocker.Config{Table: "other"})
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v, want context.DeadlineExceeded", err)
		}
	})
}

// TestMigrateNames: every name that PostgreSQL allows works.
func TestMigrateNames(t *testing.T) {
	t.Parallel()

	db := contract.Open(t, "pgx", contract.NewDatabase(t))

	for i, name := range []string{
		oddName, `"`, `\`, `'`, ".", " ", "\n", "%s", "$1", "{table}", "select", "Ünïcödé", "🔒",
		strings.Repeat("x", 63), strings.Repeat("🔒", 15) + "abc",
	} {
		cfg := &pglocker.Config{Scheme: name, Table: name}
		want := *cfg

		locker, err := pglocker.NewWithMigrateDB(t.Context(), db, cfg)
		if err != nil {
			t.Errorf("%q: %v", name, err)

			continue
		}

		if _, err := locker.AcquireLock(t.Context(), "a", time.Minute); err != nil {
			t.Errorf("%q: %v", name, err)
		}

		if *cfg != want {
			t.Errorf("%q: the caller's configuration was changed to %+v", name, cfg)
		}

		there := contract.Query[int](t, db, `SELECT count(*) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
			WHERE n.nspname = $1 AND c.relname = $1 AND c.relkind = 'r'`, name)
		if there != 1 {
			t.Errorf("case %d: %d tables have the name %q in the schema of that name", i, there, name)
		}
	}
}

// TestMigrateOther: what has the table's name and can't hold locks is left alone.
func TestMigrateOther(t *testing.T) {
	t.Parallel()

	db := contract.Open(t, "pgx", contract.NewDatabase(t))

	for name, columns := range map[string]string{
		"lacks":     "lock_id text PRIMARY KEY, generation bigint NOT NULL",
		"wrong":     "lock_id text PRIMARY KEY, generation bigint NOT NULL, expires_at timestamp NOT NULL",
		"unrelated": "id int",
		"shadowed":  "lock_id text PRIMARY KEY, generation bigint NOT NULL, expires_at timestamptz NOT NULL, owner bigint",
	} {
		contract.Exec(t, db, fmt.Sprintf("CREATE TABLE %s (%s)", name, columns))

		cfg := &pglocker.Config{Scheme: pglocker.PublicScheme, Table: name}

		locker, err := pglocker.New(db, cfg)
		contract.Must(t, err)

		// An owner alone is not pglocker's, until MigrateDB adds what goes with it.
		if _, err := locker.AcquireLock(t.Context(), "a", time.Minute); !errors.Is(err, pglocker.ErrInvalidTable) && name != "shadowed" {
			t.Errorf("%s: AcquireLock: %v, want ErrInvalidTable", name, err)
		}

		if err := pglocker.MigrateDB(t.Context(), db, cfg); !errors.Is(err, pglocker.ErrInvalidTable) {
			t.Errorf("%s: MigrateDB: %v, want ErrInvalidTable", name, err)
		}
	}
}
