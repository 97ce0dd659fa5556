//go:build unix

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
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestWrappedDriversBehindAPooler: a driver with another around it, for tracing say, works behind
// a pooler in transaction mode: no client's arguments are bound to the statement of another.
func TestWrappedDriversBehindAPooler(t *testing.T) {
	t.Parallel()

	databaseURL := contract.NewDatabase(t)
	pooled := contract.ThroughPgBouncer(t, databaseURL)

	for i, way := range []struct{ driver, parameters string }{
		{"postgres", ""},
		{contract.TracedPq, ""},
		{contract.OpaquePq, ""},
		{"pgx", ""},
		{"pgx", "&default_query_exec_mode=describe_exec"},
		{"pgx", "&default_query_exec_mode=cache_describe"},
		{"pgx", "&default_query_exec_mode=simple_protocol"},
		{contract.Traced, ""},
	} {
		t.Run(way.driver+way.parameters, func(t *testing.T) {
			t.Parallel()

			db := contract.Open(t, way.driver, pooled+way.parameters)
			cfg := &pglocker.Config{Table: fmt.Sprint("locks ", i)}

			locker, err := pglocker.NewWithMigrateDB(t.Context(), db, cfg)
			contract.Must(t, err)
			t.Cleanup(func() { contract.CloseLocker(t, locker) })

			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()

			var callers sync.WaitGroup

			for i := range 12 {
				callers.Go(func() {
					for n := range 10 {
						if err := useAll(ctx, locker, db, fmt.Sprintf("lock %d", i), fmt.Sprintf("größe '%d' \\", i), n); err != nil {
							t.Errorf("%d, %d: %v", i, n, err)

							return
						}
					}
				})
			}

			callers.Wait()
		})
	}
}

// useAll uses verbs on locks that nobody else uses.
func useAll(ctx context.Context, locker *pglocker.Locker, db *sql.DB, a, b string, n int) error {
	status, err := locker.AcquireLock(ctx, a, time.Minute)
	if err != nil {
		return err
	}

	if status, err = locker.RefreshLock(ctx, status, time.Minute); err != nil || status.LockID != a {
		return fmt.Errorf("refresh: %+v, %w", status, err)
	}

	lock, err := locker.TryLock(ctx, b, time.Minute)
	if err != nil {
		return err
	}

	if _, err := locker.AcquireLock(ctx, b, time.Minute); !errors.Is(err, pglocker.ErrAlreadyLocked) {
		return fmt.Errorf("acquire of a held lock: %w", err)
	}

	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}

	if err := lock.Guard(ctx, tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}

	if err := tx.Commit(); err != nil {
		return err
	}

	if seen, err := locker.GetLockStatus(ctx, a); err != nil || seen.Generation != status.Generation {
		return fmt.Errorf("get %d: %+v, %w, want generation %d", n, seen, err, status.Generation)
	}

	if err := lock.Unlock(ctx); err != nil {
		return err
	}

	return locker.ReleaseLock(ctx, status)
}

// TestPollingIsLogged: where waiters have to poll although the driver can listen, the log says so,
// with the reason.
func TestPollingIsLogged(t *testing.T) {
	t.Parallel()

	for name, setup := range map[string]func(t *testing.T) (driver, url string){
		"a driver that can't listen": func(t *testing.T) (string, string) { return "postgres", contract.NewDatabase(t) },
		"a pooler": func(t *testing.T) (string, string) {
			return "pgx", contract.ThroughPgBouncer(t, contract.NewDatabase(t))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var (
				told        contract.Page
				driver, url = setup(t)
			)

			locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, driver, url),
				&pglocker.Config{Logger: slog.New(slog.NewTextHandler(&told, nil))})
			contract.Must(t, err)
			t.Cleanup(func() { contract.CloseLocker(t, locker) })

			held, err := locker.AcquireLock(t.Context(), "a", time.Minute)
			contract.Must(t, err)

			ctx, cancel := context.WithCancel(t.Context())
			left := make(chan struct{})

			go func() {
				defer close(left)

				_, _ = locker.Lock(ctx, "a", time.Minute)
			}()

			contract.Await(t, "it is logged", func() bool { return strings.Contains(told.String(), "polling") })
			cancel()
			contract.Receive(t, "the waiter leaves", left)
			contract.Must(t, locker.ReleaseLock(t.Context(), held))
		})
	}
}
