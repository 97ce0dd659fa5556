package pglocker_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestErrorTexts: every error says once that it is pglocker's, however many it wraps. It calls the token so.
func TestErrorTexts(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = 2 * time.Second

		ctx := t.Context()
		url := contract.NewDatabase(t)
		db := contract.Open(t, driver, url)
		texts := make(map[string]error)

		cancelled, cancel := context.WithCancel(ctx)
		cancel()

		bare, err := pglocker.New(db, &pglocker.Config{})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, bare) })

		_, texts["no config"] = pglocker.New(db, nil)
		_, texts["no db"] = pglocker.New(nil, &pglocker.Config{})
		_, texts["bad name"] = pglocker.New(db, &pglocker.Config{Scheme: "a\x00"})
		_, texts["bad owner"] = pglocker.New(db, &pglocker.Config{Owner: "\xff"})
		texts["no table, get"] = contract.Second(bare.GetLockStatus(ctx, "a"))
		texts["no table, lock"] = contract.Second(bare.Lock(ctx, "a", ttl))
		texts["no table, migrating in vain"] = pglocker.MigrateDB(cancelled, db, &pglocker.Config{})

		contract.Exec(t, db, "CREATE SCHEMA odd; CREATE TABLE odd.t (lock_id int)")

		odd, err := pglocker.New(db, &pglocker.Config{Scheme: "odd", Table: "t"})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, odd) })

		texts["odd table"] = contract.Second(odd.TryLock(ctx, "a", ttl))
		texts["odd table, migrated"] = pglocker.MigrateDB(ctx, db, &pglocker.Config{Scheme: "odd", Table: "t"})

		locker := contract.NewLocker(t, driver, url)
		other := contract.NewLocker(t, driver, url)

		held, err := locker.TryLock(ctx, "held", time.Minute)
		contract.Must(t, err)

		texts["no id"] = contract.Second(locker.TryLock(ctx, "", ttl))
		texts["no ttl"] = contract.Second(locker.TryLock(ctx, "a", 0))
		texts["no interval"] = contract.Second(locker.TryLock(ctx, "a", ttl, pglocker.WithRelockInterval(0)))
		texts["no func"] = locker.Do(ctx, "a", ttl, ttl/2, nil)
		texts["not there"] = contract.Second(locker.GetLockStatus(ctx, "nobody's"))
		texts["held"] = contract.Second(other.AcquireLock(ctx, "held", ttl))
		texts["held, waiting"] = contract.Second(other.TryLock(ctx, "held", ttl, pglocker.WithWait(50*time.Millisecond)))
		texts["held, cancelled"] = contract.Second(other.Lock(cancelled, "held", ttl))
		texts["cancelled"] = contract.Second(other.AcquireLock(cancelled, "a", ttl))
		texts["wrong generation"] = other.ReleaseLock(ctx, &pglocker.LockStatus{LockID: "held", Generation: 1})
		texts["wrong generation, refreshing"] = contract.Second(
			other.RefreshLock(ctx, &pglocker.LockStatus{LockID: "held", Generation: 1}, ttl))
		texts["no status"] = other.ReleaseLock(ctx, nil)
		texts["lost, relocking"] = other.StartRelocker(ctx, &pglocker.LockStatus{LockID: "held", Generation: 1}, ttl, ttl/2)

		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()

		texts["held, out of time"] = contract.Second(other.Lock(short, "held", ttl))

		tx := contract.LockRows(t, db, "held")
		locked, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()

		texts["not released"] = held.Unlock(locked)
		contract.Must(t, tx.Rollback())

		texts["unlocked"] = held.Unlock(ctx)
		texts["unlocked, guard"] = held.Guard(ctx, nil)

		lost, err := locker.TryLock(ctx, "lost", time.Minute, pglocker.WithRelockInterval(10*time.Millisecond))
		contract.Must(t, err)
		contract.Exec(t, db, "UPDATE pglocker.lock_statuses SET generation = generation + 1 WHERE lock_id = 'lost'")
		contract.Receive(t, "the loss", lost.Context().Done())

		texts["lost"] = context.Cause(lost.Context())
		texts["lost, unlocked"] = lost.Unlock(ctx)

		role := "errortext_" + strings.ToLower(driver) + contract.Query[string](t, db, "SELECT pg_backend_pid()::text")
		contract.Exec(t, db, "CREATE ROLE "+role)
		t.Cleanup(func() {
			db := contract.Open(t, driver, url)
			_, err := db.ExecContext(context.Background(), "DROP ROLE "+role)
			contract.Must(t, err)
		})

		poor := contract.Open(t, driver, url)
		poor.SetMaxOpenConns(1)
		contract.Exec(t, poor, "SET ROLE "+role)

		denied, err := pglocker.New(poor, &pglocker.Config{})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, denied) })

		texts["denied"] = contract.Second(denied.AcquireLock(ctx, "a", ttl))
		texts["denied, migrating"] = pglocker.MigrateDB(ctx, poor, &pglocker.Config{Table: "another"})

		nobody, err := net.Listen("tcp", "127.0.0.1:0")
		contract.Must(t, err)

		away := strings.Replace(url, contract.Query[string](t, db, "SELECT current_setting('port')"),
			strings.TrimPrefix(nobody.Addr().String(), "127.0.0.1:"), 1)
		contract.Must(t, nobody.Close())

		unreachable, err := pglocker.New(contract.Open(t, driver, away), &pglocker.Config{})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, unreachable) })

		texts["no server"] = contract.Second(unreachable.AcquireLock(ctx, "a", ttl))
		texts["no server, migrating"] = pglocker.MigrateDB(ctx, contract.Open(t, driver, away), &pglocker.Config{})

		closed := contract.NewLocker(t, driver, url)
		contract.Must(t, closed.Close(ctx))

		texts["closed"] = contract.Second(closed.TryLock(ctx, "a", ttl))

		for what, err := range texts {
			if err == nil {
				t.Errorf("%s: no error", what)
			} else if text := err.Error(); !strings.HasPrefix(text, "pglocker: ") || strings.Count(text, "pglocker:") != 1 {
				t.Errorf("%s: %s", what, text)
			} else if rest := strings.ReplaceAll(text, pglocker.ErrWrongGeneration.Error(), ""); strings.Contains(rest, "generation") {
				t.Errorf("%s: %s: users know it as the token", what, text)
			}
		}

		if err := texts["held, cancelled"]; !errors.Is(err, context.Canceled) {
			t.Errorf("%v does not match context.Canceled", err)
		}
	})
}
