package pglocker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// TestAcknowledgedGrantsSurvive: what was acknowledged before the server was
// killed is there when it has recovered, although by default it would not wait
// for its log to be written.
func TestAcknowledgedGrantsSurvive(t *testing.T) {
	const (
		writers = 4 // for each driver
		atLeast = 500
	)

	server := startServer(t,
		pgtesting.WithSetting("fsync", "on"),
		pgtesting.WithSetting("synchronous_commit", "off"),
		pgtesting.WithSetting("wal_writer_delay", "10s"))

	var (
		mu    sync.Mutex
		acked = make(map[string]int64)
		many  = make(chan struct{})
		once  sync.Once
		done  sync.WaitGroup
	)

	ack := func(status *pglocker.LockStatus) {
		mu.Lock()
		defer mu.Unlock()

		acked[status.LockID] = status.Generation
		if len(acked) == atLeast {
			once.Do(func() { close(many) })
		}
	}

	for _, driver := range drivers {
		locker := newLocker(t, driver, server.URL())

		for w := range writers {
			done.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()

				for i := 0; ; i++ {
					status, err := locker.AcquireLock(ctx, fmt.Sprintf("%s-%d-%d", driver, w, i), time.Hour)
					if err != nil {
						return // the server is down
					}

					ack(status)

					if i%2 == 1 {
						if status, err = locker.RefreshLock(ctx, status, time.Hour); err != nil {
							return
						}

						ack(status)
					}
				}
			})
		}
	}

	contract.Receive(t, "many grants", many)
	must(t, server.Kill())
	done.Wait()
	must(t, server.Start(t.Context()))

	locker := newLocker(t, "pgx", server.URL())

	for id, generation := range acked {
		status, err := locker.GetLockStatus(t.Context(), id)
		if err != nil || status.Generation < generation {
			t.Errorf("generation %d was acknowledged; after the crash: %+v, %v", generation, status, err)
		}
	}

	t.Logf("%d locks acknowledged", len(acked))
}
