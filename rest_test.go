package pglocker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// TestAtRest: a locker with nothing to do owns no goroutine, without being closed.
// It doesn't run beside other tests, whose goroutines it would see. That no
// connection is left either is part of the contract.
func TestAtRest(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db := contract.Open(t, driver, newDatabase(t))
		locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
		must(t, err)

		before := goleak.IgnoreCurrent()

		var tasks sync.WaitGroup

		for i := range 20 {
			tasks.Go(func() {
				err := locker.Do(context.Background(), fmt.Sprint(i), 10*time.Minute, 20*time.Millisecond,
					func(ctx context.Context) error {
						lock, _ := pglocker.FromContext(ctx)
						granted := lock.Status()

						contract.Await(t, "a renewal", func() bool { return lock.Status() != granted })

						return nil
					})
				if err != nil {
					t.Error(err)
				}
			})
		}

		tasks.Wait()

		if err := goleak.Find(before); err != nil {
			t.Error(err)
		}
	})
}
