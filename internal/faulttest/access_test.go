package faulttest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// eachVerb calls every method that must write, on a lock that was created.
func eachVerb(t *testing.T, locker *pglocker.Locker, created *pglocker.LockStatus, check func(verb string, err error)) {
	t.Helper()

	ctx := t.Context()

	_, err := locker.AcquireLock(ctx, created.LockID, time.Minute)
	check("AcquireLock", err)
	_, err = locker.AcquireLock(ctx, "another", time.Minute)
	check("AcquireLock of a new lock", err)
	_, err = locker.CreateLock(ctx, "another")
	check("CreateLock", err)
	_, err = locker.RefreshLock(ctx, created, time.Minute)
	check("RefreshLock", err)
	check("ReleaseLock", locker.ReleaseLock(ctx, created))
	check("Do", locker.Do(ctx, created.LockID, time.Minute, time.Second, func(context.Context) error {
		t.Error("fn was called")

		return nil
	}))
}

// TestReadOnly: where transactions are read-only, nothing is granted and the error
// says why.
func TestReadOnly(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		databaseURL := contract.NewDatabase(t)
		created, err := contract.NewLocker(t, driver, databaseURL).CreateLock(t.Context(), "a")
		contract.Must(t, err)

		admin := contract.Open(t, driver, databaseURL)
		setDefault(t, admin, "default_transaction_read_only", "on")

		db := contract.Open(t, driver, databaseURL)
		db.SetMaxIdleConns(0) // each statement meets the setting of its time

		locker, err := pglocker.New(db, &pglocker.Config{})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })
		eachVerb(t, locker, created, func(verb string, err error) {
			if !errors.Is(err, pglocker.ErrReadOnly) {
				t.Errorf("%s: %v, want ErrReadOnly", verb, err)
			}
		})

		if status, err := locker.GetLockStatus(t.Context(), "a"); err != nil || *status != *created {
			t.Errorf("GetLockStatus: %+v, %v, want %+v", status, err, created)
		}

		if err := pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}); err != nil {
			t.Errorf("MigrateDB of what is in place: %v", err)
		}

		if err := pglocker.MigrateDB(t.Context(), db, &pglocker.Config{Table: "other"}); !errors.Is(err, pglocker.ErrReadOnly) {
			t.Errorf("MigrateDB: %v, want ErrReadOnly", err)
		}

		setDefault(t, admin, "default_transaction_read_only", "off") // by a session that began before

		if _, err := locker.AcquireLock(t.Context(), "a", time.Minute); err != nil {
			t.Errorf("AcquireLock afterwards: %v", err)
		}
	})
}

// TestPrivileges: a role gets along with USAGE, SELECT, INSERT and UPDATE, and is
// told what it lacks.
func TestPrivileges(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		ctx := t.Context()
		databaseURL := contract.NewDatabase(t)
		admin := contract.Open(t, driver, databaseURL)
		owners := contract.NewLocker(t, driver, databaseURL)
		created, err := owners.CreateLock(ctx, "a")
		contract.Must(t, err)

		role, db := newRole(t, admin, driver, databaseURL)

		locker, err := pglocker.New(db, &pglocker.Config{})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

		denied := func(lacking string) func(verb string, err error) {
			return func(verb string, err error) {
				if !errors.Is(err, pglocker.ErrPermissionDenied) || !strings.Contains(err.Error(), "UPDATE") {
					t.Errorf("%s without %s: %v, want ErrPermissionDenied and what the role needs", verb, lacking, err)
				}
			}
		}

		eachVerb(t, locker, created, denied("USAGE"))
		contract.Exec(t, admin, "GRANT USAGE ON SCHEMA pglocker TO "+role)
		eachVerb(t, locker, created, denied("any privilege on the table"))

		_, err = locker.GetLockStatus(ctx, "a")
		denied("SELECT")("GetLockStatus", err)

		// Looking is one thing, and what is in place needs no right to make it.
		if err := pglocker.MigrateDB(ctx, db, &pglocker.Config{}); err != nil {
			t.Errorf("MigrateDB of what is in place: %v", err)
		}

		err = pglocker.MigrateDB(ctx, db, &pglocker.Config{Table: "other"})
		if !errors.Is(err, pglocker.ErrPermissionDenied) {
			t.Errorf("MigrateDB: %v, want ErrPermissionDenied", err)
		}

		// The same locker works with these three, and no more.
		contract.Exec(t, admin, "GRANT SELECT, INSERT, UPDATE ON pglocker.lock_statuses TO "+role)

		for range 2 {
			contract.Must(t, locker.Do(ctx, "b", time.Minute, 10*time.Millisecond, func(ctx context.Context) error {
				lock, _ := pglocker.FromContext(ctx)
				granted := lock.Status()

				contract.Await(t, "a renewal", func() bool { return lock.Status() != granted })

				return nil
			}))
		}

		refreshed, err := locker.RefreshLock(ctx, created, time.Minute)
		contract.Must(t, err)
		contract.Must(t, locker.ReleaseLock(ctx, refreshed))
	})
}
