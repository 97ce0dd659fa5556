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

// TestErrorTexts: every error says once that it is pglocker's, however many it wraps.
func TestErrorTexts(t *testing.T) {
	t.Parallel()
	eachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = 2 * time.Second

		ctx := t.Context()
		url := newDatabase(t)
		db := contract.Open(t, driver, url)
		texts := make(map[string]error)

		cancelled, cancel := context.WithCancel(ctx)
		cancel()

		bare, err := pglocker.New(db, &pglocker.Config{})
		must(t, err)
		t.Cleanup(func() { closeLocker(t, bare) })

		_, texts["no config"] = pglocker.New(db, nil)
		_, texts["no db"] = pglocker.New(nil, &pglocker.Config{})
		_, texts["bad name"] = pglocker.New(db, &pglocker.Config{Scheme: "a\x00"})
		_, texts["bad owner"] = pglocker.New(db, &pglocker.Config{Owner: "\xff"})
		texts["no table, get"] = second(bare.GetLockStatus(ctx, "a"))
		texts["no table, lock"] = second(bare.Lock(ctx, "a", ttl))
		texts["no table, migrating in vain"] = pglocker.MigrateDB(cancelled, db, &pglocker.Config{})

		contract.Exec(t, db, "CREATE SCHEMA odd; CREATE TABLE odd.t (lock_id int)")

		odd, err := pglocker.New(db, &pglocker.Config{Scheme: "odd", Table: "t"})
		must(t, err)
		t.Cleanup(func() { closeLocker(t, odd) })

		texts["odd table"] = second(odd.TryLock(ctx, "a", ttl))
		texts["odd table, migrated"] = pglocker.MigrateDB(ctx, db, &pglocker.Config{Scheme: "odd", Table: "t"})

		locker := newLocker(t, driver, url)
		other := newLocker(t, driver, url)

		held, err := locker.TryLock(ctx, "held", time.Minute)
		must(t, err)

		texts["no id"] = second(locker.TryLock(ctx, "", ttl))
		texts["no ttl"] = second(locker.TryLock(ctx, "a", 0))
		texts["no interval"] = second(locker.TryLock(ctx, "a", ttl, pglocker.WithRelockInterval(0)))
		texts["no func"] = locker.Do(ctx, "a", ttl, ttl/2, nil)
		texts["not there"] = second(locker.GetLockStatus(ctx, "nobody's"))
		texts["held"] = second(other.AcquireLock(ctx, "held", ttl))
		texts["held, waiting"] = second(other.TryLock(ctx, "held", ttl, pglocker.WithWait(50*time.Millisecond)))
		texts["held, cancelled"] = second(other.Lock(cancelled, "held", ttl))
		texts["cancelled"] = second(other.AcquireLock(cancelled, "a", ttl))
		texts["wrong generation"] = other.ReleaseLock(ctx, &pglocker.LockStatus{LockID: "held", Generation: 1})
		texts["wrong generation, refreshing"] = second(
			other.RefreshLock(ctx, &pglocker.LockStatus{LockID: "held", Generation: 1}, ttl))
		texts["no status"] = other.ReleaseLock(ctx, nil)
		texts["lost, relocking"] = other.StartRelocker(ctx, &pglocker.LockStatus{LockID: "held", Generation: 1}, ttl, ttl/2)

		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()

		texts["held, out of time"] = second(other.Lock(short, "held", ttl))

		tx := lockRows(t, db, "held")
		locked, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()

		texts["not released"] = held.Unlock(locked)
		must(t, tx.Rollback())

		texts["unlocked"] = held.Unlock(ctx)
		texts["unlocked, guard"] = held.Guard(ctx, nil)

		lost, err := locker.TryLock(ctx, "lost", time.Minute, pglocker.WithRelockInterval(10*time.Millisecond))
		must(t, err)
		contract.Exec(t, db, "UPDATE pglocker.lock_statuses SET generation = generation + 1 WHERE lock_id = 'lost'")
		contract.Receive(t, "the loss", lost.Context().Done())

		texts["lost"] = context.Cause(lost.Context())
		texts["lost, unlocked"] = lost.Unlock(ctx)

		role := "errortext_" + strings.ToLower(driver) + contract.Query[string](t, db, "SELECT pg_backend_pid()::text")
		contract.Exec(t, db, "CREATE ROLE "+role)
		t.Cleanup(func() {
			db := contract.Open(t, driver, url)
			_, err := db.ExecContext(context.Background(), "DROP ROLE "+role)
			must(t, err)
		})

		poor := contract.Open(t, driver, url)
		poor.SetMaxOpenConns(1)
		contract.Exec(t, poor, "SET ROLE "+role)

		denied, err := pglocker.New(poor, &pglocker.Config{})
		must(t, err)
		t.Cleanup(func() { closeLocker(t, denied) })

		texts["denied"] = second(denied.AcquireLock(ctx, "a", ttl))
		texts["denied, migrating"] = pglocker.MigrateDB(ctx, poor, &pglocker.Config{Table: "another"})

		nobody, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)

		away := strings.Replace(url, contract.Query[string](t, db, "SELECT current_setting('port')"),
			strings.TrimPrefix(nobody.Addr().String(), "127.0.0.1:"), 1)
		must(t, nobody.Close())

		unreachable, err := pglocker.New(contract.Open(t, driver, away), &pglocker.Config{})
		must(t, err)
		t.Cleanup(func() { closeLocker(t, unreachable) })

		texts["no server"] = second(unreachable.AcquireLock(ctx, "a", ttl))
		texts["no server, migrating"] = pglocker.MigrateDB(ctx, contract.Open(t, driver, away), &pglocker.Config{})

		closed := newLocker(t, driver, url)
		must(t, closed.Close(ctx))

		texts["closed"] = second(closed.TryLock(ctx, "a", ttl))

		for what, err := range texts {
			if err == nil {
				t.Errorf("%s: no error", what)
			} else if text := err.Error(); !strings.HasPrefix(text, "pglocker: ") || strings.Count(text, "pglocker:") != 1 {
				t.Errorf("%s: %s", what, text)
			}
		}

		if err := texts["held, cancelled"]; !errors.Is(err, context.Canceled) {
			t.Errorf("%v does not match context.Canceled", err)
		}
	})
}

// second is an error without the value that comes with it.
func second[T any](_ T, err error) error { return err }
