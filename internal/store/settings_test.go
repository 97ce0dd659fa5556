package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/internal/store"
)

// oddSettings are what a role or a database may have by default.
var oddSettings = map[string]string{
	"nothing":                     "",
	"DateStyle German":            "DateStyle = 'German'",
	"DateStyle SQL, DMY":          "DateStyle = 'SQL, DMY'",
	"DateStyle Postgres":          "DateStyle = 'Postgres, DMY'",
	"IntervalStyle":               "IntervalStyle = 'sql_standard'",
	"TimeZone west":               "TimeZone = 'America/Los_Angeles'",
	"TimeZone far east":           "TimeZone = 'Pacific/Kiritimati'",
	"standard_conforming_strings": "standard_conforming_strings = off",
	"backslash_quote":             "backslash_quote = off",
	"array_nulls":                 "array_nulls = off",
	"transform_null_equals":       "transform_null_equals = on",
	"quote_all_identifiers":       "quote_all_identifiers = on",
	"session_replication_role":    "session_replication_role = replica",
	"serializable":                "default_transaction_isolation = 'serializable'",
	"deferrable":                  "default_transaction_deferrable = on",
	"plan_cache_mode generic":     "plan_cache_mode = 'force_generic_plan'",
	"synchronous_commit":          "synchronous_commit = off",
	"no search_path":              "search_path = ''",
	"pg_catalog last":             "search_path = public, pg_catalog",
	"another access method":       "default_table_access_method = 'other'",
	"no nested loops":             "enable_nestloop = off",
	"no tid scans":                "enable_tidscan = off",
}

// togetherOdd are all of oddSettings in as few groups as they fit in, each value of a setting in one
// of them, and all alone that say how a statement is planned.
func togetherOdd() map[string]string {
	groups := map[string]string{}

	for what, setting := range oddSettings {
		name, _, _ := strings.Cut(setting, " = ")

		if name == "" || strings.HasPrefix(name, "enable_") || name == "plan_cache_mode" {
			groups[what] = setting

			continue
		}

		for n := 1; ; n++ {
			group := fmt.Sprintf("group %d", n)
			if !strings.Contains(groups[group], name+" = ") {
				groups[group] += setting + "; "

				break
			}
		}
	}

	return groups
}

// TestOddSettings: no default of the role or the database changes what the statements do.
func TestOddSettings(t *testing.T) {
	t.Parallel()

	for _, way := range []struct{ driver, mode string }{
		{"pgx", ""},
		{"pgx", "exec"},
		{contract.Traced, ""},
		{"postgres", ""},
	} {
		t.Run(way.driver+" "+way.mode, func(t *testing.T) {
			t.Parallel()

			u := databases.NewDatabase(t)
			admin := contract.Open(t, "pgx", u.String())

			contract.Exec(t, admin, "CREATE ACCESS METHOD other TYPE TABLE HANDLER heap_tableam_handler")

			if way.mode != "" {
				q := u.Query()
				q.Set("default_query_exec_mode", way.mode)
				u.RawQuery = q.Encode()
			}

			set := func(setting string) {
				contract.Exec(t, admin, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I RESET ALL', current_database()); END $$")

				for one := range strings.SplitSeq(setting, "; ") {
					if one != "" {
						contract.Exec(t, admin, fmt.Sprintf(
							"DO $do$ BEGIN EXECUTE format('ALTER DATABASE %%I SET %%s', current_database(), $$%s$$); END $do$", one))
					}
				}
			}

			n := 0

			for what, setting := range oddSettings {
				set(setting)

				n++
				cfg := &pglocker.Config{Table: fmt.Sprintf("six_%d", n)}

				if err := everyVerb(t.Context(), contract.Open(t, way.driver, u.String()), cfg, true); err != nil {
					t.Errorf("%s, six columns: %v", what, err)
				}
			}

			// The statements for three columns are made of the same parts.
			for what, setting := range togetherOdd() {
				set(setting)

				n++
				cfg := &pglocker.Config{Scheme: "public", Table: fmt.Sprintf("three_%d", n)}
				contract.Exec(t, admin, fmt.Sprintf("CREATE TABLE public.%s (%s)", cfg.Table, contract.ThreeColumns))

				if err := everyVerb(t.Context(), contract.Open(t, way.driver, u.String()), cfg, false); err != nil {
					t.Errorf("%s, three columns: %v", what, err)
				}
			}

			if n := contract.Query[int](t, admin, `SELECT count(*) FROM pg_class AS c JOIN pg_am AS a ON a.oid = c.relam
				WHERE c.relname LIKE 'six%' AND c.relkind = 'r' AND a.amname <> 'heap'`); n > 0 {
				t.Errorf("%d tables are of another access method than heap", n)
			}
		})
	}
}

// everyVerb does everything once that a Locker can be asked for.
func everyVerb(ctx context.Context, db *sql.DB, cfg *pglocker.Config, migrate bool) (err error) {
	const id = `odd "id"; \' {NULL}`

	if migrate {
		if err := pglocker.MigrateDB(ctx, db, cfg); err != nil {
			return err
		}
	}

	locker, err := pglocker.New(db, cfg)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, locker.Close(context.WithoutCancel(ctx))) }()

	if status, err := locker.CreateLock(ctx, id); err != nil || status.Generation != 1 {
		return fmt.Errorf("CreateLock: %+v, %w", status, err)
	}

	status, err := locker.AcquireLock(ctx, id, time.Hour)
	if err != nil {
		return fmt.Errorf("AcquireLock: %w", err)
	}

	if left := time.Until(status.ExpiresAt); status.LockID != id || left < time.Hour/2 || left > 2*time.Hour {
		return fmt.Errorf("AcquireLock: %+v", status)
	}

	if _, err := locker.AcquireLock(ctx, id, time.Hour); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		return fmt.Errorf("AcquireLock of what is held: %w", err)
	}

	if seen, err := locker.GetLockStatus(ctx, id); err != nil || *seen != *status {
		return fmt.Errorf("GetLockStatus: %+v, %w, want %+v", seen, err, status)
	}

	refreshed, err := locker.RefreshLock(ctx, status, time.Hour)
	if err != nil {
		return fmt.Errorf("RefreshLock: %w", err)
	}

	if err := locker.ReleaseLock(ctx, status); !errors.Is(err, pglocker.ErrWrongGeneration) {
		return fmt.Errorf("ReleaseLock by an old status: %w", err)
	}

	if err := locker.ReleaseLock(ctx, refreshed); err != nil {
		return fmt.Errorf("ReleaseLock: %w", err)
	}

	// Together.
	var (
		wg   sync.WaitGroup
		errs = make([]error, 16)
	)

	for round := range 2 {
		for i := range errs {
			wg.Go(func() {
				status, err := locker.AcquireLock(ctx, fmt.Sprintf("%d %s", i, id), time.Hour)
				if err == nil {
					err = locker.ReleaseLock(ctx, status)
				}

				errs[i] = err
			})
		}

		wg.Wait()

		if err := errors.Join(errs...); err != nil {
			return fmt.Errorf("together, round %d: %w", round, err)
		}
	}

	lock, err := locker.TryLock(ctx, id, time.Minute, pglocker.WithRelockInterval(10*time.Millisecond))
	if err != nil {
		return fmt.Errorf("TryLock: %w", err)
	}

	granted := lock.Status()
	for deadline := time.Now().Add(30 * time.Second); lock.Status() == granted; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return errors.New("no renewal")
		}
	}

	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}

	err = lock.Guard(ctx, tx)

	if err == nil {
		query, args := lock.GuardSQL()
		err = tx.QueryRowContext(ctx, query, args...).Scan(new(int64))
	}

	if err := errors.Join(err, tx.Commit()); err != nil {
		return fmt.Errorf("the guard: %w", err)
	}

	// Times that nobody can express.
	table := store.Table{Schema: cfg.Scheme, Name: cfg.Table}
	if table.Schema == "" {
		table.Schema = pglocker.DefaultScheme
	}

	for _, when := range []string{"-infinity", "infinity"} {
		if _, err := db.ExecContext(ctx, fmt.Sprintf("INSERT INTO %s (lock_id, generation, expires_at) VALUES ('%s', 5, '%[2]s')", table, when)); err != nil {
			return err
		}

		if seen, err := locker.GetLockStatus(ctx, when); err != nil || seen.Generation != 5 || seen.ExpiresAt.Year() != 1 && seen.ExpiresAt.Year() != 9999 {
			return fmt.Errorf("GetLockStatus, %s: %+v, %w", when, seen, err)
		}
	}

	if !migrate { // a waiter's statements are then those above
		return lock.Unlock(ctx)
	}

	// A waiter that is handed the lock, and one of another Locker.
	other, err := pglocker.New(db, cfg)
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, other.Close(context.WithoutCancel(ctx))) }()

	waited := make(chan error, 2)

	for _, l := range []*pglocker.Locker{locker, other} {
		go func() {
			lock, err := l.Lock(ctx, id, time.Minute)
			if err == nil {
				err = lock.Unlock(ctx)
			}

			waited <- err
		}()
	}

	if err := errors.Join(lock.Unlock(ctx), <-waited, <-waited); err != nil {
		return fmt.Errorf("waiting: %w", err)
	}

	return nil
}

// TestIdentity: ids are compared as the table's unique index compares them, whatever type the
// user gave them.
func TestIdentity(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		for what, c := range map[string]struct {
			before, columns string
		}{
			"text":     {"", "lock_id text PRIMARY KEY"},
			"varchar":  {"", "lock_id varchar(100) PRIMARY KEY"},
			"a domain": {"CREATE DOMAIN d AS text CHECK (VALUE <> 'b'); ", "lock_id d PRIMARY KEY"},
		} {
			u := newDatabase(t).String()
			several := contract.Open(t, "postgres", u) // takes several statements in one text

			contract.Exec(t, several, c.before+"CREATE TABLE public.locks ("+c.columns+
				", generation bigint NOT NULL, expires_at timestamptz NOT NULL); CREATE UNIQUE INDEX ON public.locks (lock_id text_ops)")

			for _, path := range []string{"public,pg_catalog", "public", "nowhere"} {
				parsed, err := url.Parse(u)
				if err != nil {
					t.Fatal(err)
				}

				q := parsed.Query()
				q.Set("search_path", path)
				parsed.RawQuery = q.Encode()

				contract.Exec(t, several, "DELETE FROM public.locks")

				s := store.New(contract.Open(t, driver, parsed.String()), store.Table{Schema: "public", Name: "locks"}, nil)

				first, err := s.Acquire(t.Context(), "A", "me", time.Hour, margin)
				if err != nil || first.Verdict != store.Granted {
					t.Fatalf("%s, search_path %s: Acquire: %+v, %v", what, path, first, err)
				}

				if res, err := s.Acquire(t.Context(), "a", "you", time.Hour, margin); err != nil || res.Verdict != store.Granted {
					t.Errorf("%s, search_path %s: Acquire of another id: %+v, %v", what, path, res, err)
				}

				asked := []*store.Asked{{ID: "A", Generation: first.Row.Generation}, {ID: "c", Generation: 1}}
				if err := store.AskTogether(t.Context(), s, "release", asked); err != nil || asked[0].Err != nil || !asked[0].Matched {
					t.Errorf("%s, search_path %s: releases together: %+v, %v", what, path, asked[0], err)
				}

				tx, err := several.BeginTx(t.Context(), nil)
				if err != nil {
					t.Fatal(err)
				}

				rows, err := tx.QueryContext(t.Context(), s.GuardSQL(), "A", first.Row.Generation)
				if err != nil || rows.Next() {
					t.Errorf("%s, search_path %s: the guard of a released lock: %v", what, path, err)
				}

				_ = tx.Rollback() // it only read
			}
		}
	})
}

// TestForeignOperatorClass: a table whose unique index takes two ids for one is refused, though its
// column and collation don't show it.
func TestForeignOperatorClass(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		db := contract.Open(t, driver, newDatabase(t).String())

		for _, text := range []string{
			"CREATE FUNCTION lax(text, text) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT bttextcmp(lower($1), lower($2))'",
			"CREATE FUNCTION laxly_equal(text, text) RETURNS boolean IMMUTABLE LANGUAGE sql AS 'SELECT lower($1) = lower($2)'",
			"CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = laxly_equal)",
			"CREATE OPERATOR CLASS lax FOR TYPE text USING btree AS OPERATOR 3 ===, FUNCTION 1 lax(text, text)",
			"CREATE TABLE locks (lock_id text NOT NULL, generation bigint NOT NULL, expires_at timestamptz NOT NULL)",
			"CREATE UNIQUE INDEX ON locks (lock_id lax)",
		} {
			contract.Exec(t, db, text)
		}

		s := store.New(db, store.Table{Schema: "public", Name: "locks"}, nil)

		if res, err := s.Acquire(t.Context(), "a", "me", time.Minute, margin); !errors.Is(err, store.ErrInvalidTable) {
			t.Errorf("Acquire: %+v, %v, want ErrInvalidTable", res, err)
		}
	})
}
