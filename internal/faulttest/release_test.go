package faulttest

import (
	"context"
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

// TestReleaseIsBounded: a release that the database doesn't answer is given up half a second
// after the lease is over at the latest, whatever the caller's context.
func TestReleaseIsBounded(t *testing.T) {
	t.Parallel()

	const (
		ttl   = 1500 * time.Millisecond
		after = 500 * time.Millisecond
	)

	for name, hold := range map[string]func(l *lossy, silence func()) error{
		"Unlock": func(l *lossy, silence func()) error {
			lock, err := l.locker.TryLock(context.Background(), "a", ttl)
			if err != nil {
				return err
			}

			silence()

			return lock.Unlock(context.Background())
		},
		"Do": func(l *lossy, silence func()) error {
			return l.locker.Do(context.Background(), "a", ttl, ttl/3, func(context.Context) error {
				silence()

				return nil
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachLossy(t, func(t *testing.T, l *lossy) {
				var over time.Time

				done := make(chan error, 1)

				go func() {
					done <- hold(l, func() {
						over = time.Now().Add(ttl)

						l.proxy.onAnswer(func() fate { return mute })
					})
				}()

				err := contract.Receive(t, name+" returns", done)
				late := time.Since(over)

				if !errors.Is(err, pglocker.ErrNotReleased) {
					t.Errorf("%v, want ErrNotReleased", err)
				}

				t.Logf("it returned %s after the end of the lease", late)

				if late > after || late < -ttl/2 {
					t.Errorf("it returned %s after the end of the lease, want %s at most", late, after)
				}
			})
		})
	}
}

// TestReleaseTroubleIsTold: releases that fail and are repeated are logged once for all, with
// a lock and its token, and so is the end of that.
func TestReleaseTroubleIsTold(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		p, through := newProxy(t, contract.NewDatabase(t))
		log := new(contract.Journal)
		locker, err := pglocker.NewWithMigrateDB(t.Context(), contract.Open(t, driver, through),
			&pglocker.Config{Logger: slog.New(log)})
		contract.Must(t, err)
		t.Cleanup(func() { contract.CloseLocker(t, locker) })

		var locks []*pglocker.Lock

		for i := range 20 {
			lock, err := locker.TryLock(t.Context(), fmt.Sprint("lock ", i), 20*time.Second)
			contract.Must(t, err)

			locks = append(locks, lock)
		}

		p.refuse(true)
		p.cutAll()

		var group sync.WaitGroup

		for _, lock := range locks {
			group.Go(func() {
				if err := lock.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}

		begin := log.One(t, slog.LevelWarn, "releases are in trouble")
		if !strings.HasPrefix(begin.Attrs["lock"].String(), "lock ") || begin.Attrs["token"].Int64() < 2 ||
			begin.Attrs["error"].String() == "" {
			t.Errorf("logged %+v", begin)
		}

		p.refuse(false)
		group.Wait()

		end := log.One(t, slog.LevelInfo, "releases are no longer in trouble")
		if end.Attrs["lasted"].Duration() <= 0 || end.Attrs["failed_attempts"].Int64() < 1 {
			t.Errorf("logged %+v", end)
		}
	})
}
