package faulttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// cutLeases has the table end leases that early, as a trigger of its owner may: every lease of
// the locks whose ids begin with "cut", and those of "later" once they are renewed.
func (l *lossy) cutLeases(t *testing.T, lease time.Duration) {
	t.Helper()

	contract.Exec(t, l.direct, fmt.Sprintf(`CREATE FUNCTION pglocker.cut() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			NEW.expires_at := least(NEW.expires_at, clock_timestamp() + interval '%d ms');
			RETURN NEW;
		END $$`, lease.Milliseconds()))

	for _, text := range []string{
		`CREATE TRIGGER cut BEFORE INSERT OR UPDATE ON pglocker.lock_statuses
			FOR EACH ROW WHEN (NEW.lock_id LIKE 'cut%') EXECUTE FUNCTION pglocker.cut()`,
		`CREATE TRIGGER cut_later BEFORE UPDATE ON pglocker.lock_statuses
			FOR EACH ROW WHEN (NEW.lock_id = 'later' AND NEW.generation = OLD.generation AND NEW.expires_at > OLD.expires_at)
			EXECUTE FUNCTION pglocker.cut()`,
	} {
		contract.Exec(t, l.direct, text)
	}
}

// TestShortLeases: where the table ends leases earlier than was asked for, a holder keeps its
// lock by renewing it so much more often, and stops before another is granted it, however it
// was granted the lock.
func TestShortLeases(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		const (
			lease = 3 * time.Second
			ttl   = time.Minute
		)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()

		l.cutLeases(t, lease)

		cfg := *l.cfg
		cfg.SafetyMargin = 500 * time.Millisecond

		locker, err := pglocker.New(l.db, &cfg)
		contract.Must(t, err)
		t.Cleanup(func() {
			l.proxy.cutAll()
			contract.CloseLocker(t, locker)
		})

		other, err := pglocker.New(l.direct, &cfg)
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, other) })

		var locks []*pglocker.Lock

		take := func(id string, opts ...pglocker.LockOption) {
			lock, err := locker.Lock(ctx, id, ttl, opts...)
			contract.Must(t, err)

			locks = append(locks, lock)
		}

		take("cut, inserted")

		_, err = locker.CreateLock(ctx, "cut, updated")
		contract.Must(t, err)
		take("cut, updated")

		// Its holder is gone.
		_, err = locker.AcquireLock(ctx, "cut, claimed", cfg.SafetyMargin*21/10)
		contract.Must(t, err)
		take("cut, claimed")

		first, err := locker.Lock(ctx, "cut, handed over", ttl)
		contract.Must(t, err)

		unlocked := make(chan error, 1)

		go func() {
			for id := ""; id != "cut, handed over" && ctx.Err() == nil; {
				select {
				case id = <-l.watcher.InLine():
				case <-ctx.Done():
				}
			}

			unlocked <- first.Unlock(ctx)
		}()

		take("cut, handed over")
		contract.Must(t, <-unlocked)

		take("later", pglocker.WithRelockInterval(time.Second))

		for _, lock := range locks {
			for range 2 {
				last := lock.Status().ExpiresAt

				contract.Await(t, lock.Status().LockID+" is renewed", func() bool {
					if err := context.Cause(lock.Context()); err != nil {
						t.Fatal(err)
					}

					return lock.Status().ExpiresAt != last
				})
			}
		}

		l.proxy.refuse(true)
		l.proxy.cutAll()

		var group sync.WaitGroup

		for _, lock := range locks {
			group.Go(func() {
				id := lock.Status().LockID

				next, err := other.Lock(ctx, id, ttl)
				if err != nil {
					t.Errorf("%s: %v", id, err)

					return
				}

				if lock.Context().Err() == nil {
					t.Errorf("two believe at once in %q", id)
				}

				if err := next.Unlock(ctx); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			})
		}

		group.Wait()
		l.proxy.refuse(false)
	})
}

// TestLeaseBelowTheMargin: a lease that the table ends before the margin is none to work
// under, which is said, and not tried for ever.
func TestLeaseBelowTheMargin(t *testing.T) {
	t.Parallel()
	eachLossy(t, func(t *testing.T, l *lossy) {
		l.cutLeases(t, 300*time.Millisecond) // the margin is a second

		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()

		for verb, take := range map[string]func() error{
			"TryLock": func() error {
				_, err := l.locker.TryLock(ctx, "cut a", time.Minute)

				return err
			},
			"Lock": func() error {
				_, err := l.locker.Lock(ctx, "cut b", time.Minute)

				return err
			},
			"AcquireLock": func() error {
				_, err := l.locker.AcquireLock(ctx, "cut c", time.Minute)

				return err
			},
		} {
			if err := take(); !errors.Is(err, pglocker.ErrInvalidTable) {
				t.Errorf("%s: %v, want ErrInvalidTable", verb, err)
			}
		}

		// A status says what the row shows.
		before := contract.Now(t, l.direct)

		status, err := l.locker.AcquireLock(ctx, "cut d", 2*time.Second) // with a margin of 0.2 s
		contract.Must(t, err)

		if end := status.ExpiresAt; end.Before(before) || end.After(before.Add(time.Second)) {
			t.Errorf("taken at %s, until %s", before, end)
		}
	})
}
