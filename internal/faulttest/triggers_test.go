package faulttest

import (
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestTriggersAreNotCompiled: a trigger's statements are planned with the settings of the Locker's own. If scans are
// off for it, and the trigger has no index to use, the server must not compile its plans: that takes 0.1 s each time.
func TestTriggersAreNotCompiled(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		ctx := t.Context()
		databaseURL := contract.NewDatabase(t)
		admin := contract.Open(t, driver, databaseURL)
		contract.Must(t, pglocker.MigrateDB(ctx, admin, &pglocker.Config{}))
		contract.Exec(t, admin, `
			CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
				IF current_setting('enable_seqscan') = 'off' AND current_setting('jit') = 'on' THEN
					RAISE EXCEPTION 'to be compiled';
				END IF;
				RETURN NEW;
			END $$`)
		contract.Exec(t, admin, `
			CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON pglocker.lock_statuses
			FOR EACH ROW EXECUTE FUNCTION refuse()`)

		locker := contract.NewLocker(t, driver, databaseURL)

		for range 2 { // by INSERT, by UPDATE
			lock, err := locker.Lock(ctx, "a", time.Minute, pglocker.WithRelockInterval(time.Millisecond))
			contract.Must(t, err)

			granted := lock.Status().ExpiresAt
			contract.Await(t, "a renewal", func() bool { return lock.Status().ExpiresAt.After(granted) })
			contract.Must(t, lock.Unlock(ctx))
		}

		c := contract.NewSQLClient(admin, &pglocker.Config{})

		g, err := c.Acquire(ctx, "b", time.Minute, "me")
		if err != nil || !g.Acquired {
			t.Fatalf("acquire_lock: %+v, %v", g, err)
		}

		if held, err := c.Release(ctx, "b", g.Token); err != nil || !held {
			t.Errorf("release_lock: %t, %v", held, err)
		}
	})
}
