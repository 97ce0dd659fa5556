package faulttest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

// labelled finds in a profile how many goroutines have which labels.
var labelled = regexp.MustCompile(`(?m)^(\d+) @ .*\n# labels: (.*)$`)

// goroutines counts those with the test's label.
func goroutines(t *testing.T) (count int) {
	t.Helper()

	var profile strings.Builder

	contract.Must(t, pprof.Lookup("goroutine").WriteTo(&profile, 1))

	for _, found := range labelled.FindAllStringSubmatch(profile.String(), -1) {
		if strings.Contains(found[2], strconv.Quote(t.Name())) {
			alike, err := strconv.Atoi(found[1])
			contract.Must(t, err)

			count += alike
		}
	}

	if count == 0 {
		t.Error("no goroutine has the test's label, not even its own")
	}

	return count
}

// TestSilentServer: a server that accepts connections and never answers is left with a
// handful of them, and of goroutines, whatever the driver does about contexts, and Close
// returns.
func TestSilentServer(t *testing.T) {
	t.Parallel()

	for _, driver := range contract.Drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()

			h, url := newHole(t)

			// All that is started from here on, by whoever, has the label.
			labels := pprof.Labels("test", t.Name())
			pprof.SetGoroutineLabels(pprof.WithLabels(t.Context(), labels))

			locker, err := pglocker.New(contract.Open(t, driver, url), &pglocker.Config{})
			contract.Must(t, err)

			ctx, stop := context.WithCancel(t.Context())

			var callers sync.WaitGroup

			for range 8 {
				callers.Go(func() {
					for ctx.Err() == nil {
						ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
						_, _ = locker.AcquireLock(ctx, "a", time.Second)

						cancel()
					}
				})
				callers.Go(func() {
					for ctx.Err() == nil {
						_ = locker.StartRelocker(ctx, &pglocker.LockStatus{LockID: "b", Generation: 2}, 300*time.Millisecond, 50*time.Millisecond)
					}
				})
			}

			time.Sleep(6 * time.Second)

			pool, own, running := h.pool.Load(), h.own.Load(), goroutines(t)

			stop()
			callers.Wait()

			closing, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()

			if err := locker.Close(closing); err != nil {
				t.Error(err)
			}

			// pgx lets go of a connection when it is told to, lib/pq of none.
			if driver == "postgres" && (pool > 8 || own > 7) {
				t.Errorf("%d connections of the pool and %d beside it, want eight and seven at most", pool, own)
			}

			t.Logf("%d connections of the pool, %d beside it, %d goroutines", pool, own, running)

			if running > 120 {
				t.Errorf("%d goroutines", running)
			}
		})
	}
}

// TestOwnConnectionsInAStall: while a server answers nobody, a Locker that holds, releases
// and waits for many locks has a handful of connections beside the pool.
func TestOwnConnectionsInAStall(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		const ttl = 2 * time.Second

		databaseURL := contract.NewDatabase(t)
		direct := contract.Open(t, "pgx", databaseURL)
		p, url := newProxy(t, databaseURL)

		db := contract.Open(t, driver, url)
		db.SetMaxOpenConns(4)

		locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
		contract.Must(t, err)

		var tasks []*contract.Task
		for i := range 20 {
			tasks = append(tasks, contract.StartTask(t, locker, fmt.Sprint(i), ttl, ttl/10))
		}

		ctx, leave := context.WithCancel(t.Context())

		var waiters sync.WaitGroup

		for i := range 20 {
			waiters.Go(func() {
				_, err := locker.Lock(ctx, fmt.Sprint(i), ttl)
				if err == nil || !errors.Is(err, context.Canceled) {
					t.Errorf("Lock in a stall: %v", err)
				}
			})
		}

		tasks[0].AwaitRenewal(t)
		p.onAnswer(func() fate { return mute })

		// Each task loses its lock meanwhile, and tries to release it.
		most := 0

		for end := time.Now().Add(3 * ttl); time.Now().Before(end); {
			most = max(most, contract.Query[int](t, direct, `SELECT count(*) FROM pg_stat_activity
				WHERE datname = current_database() AND application_name LIKE 'pglocker %'`))

			time.Sleep(5 * time.Millisecond) // two looks
		}

		if most > 8 {
			t.Errorf("%d connections beside the pool, want eight at most", most)
		}

		leave()
		p.onAnswer(nil)
		p.cutAll()
		waiters.Wait()

		for _, k := range tasks {
			contract.Receive(t, "Do returns", k.Returned)
		}

		contract.CloseLocker(t, locker)
	})
}

// TestStallWithoutAPoolLimit: callers that come and go while a server answers nobody leave
// a bounded number of connections behind, though neither the pool nor lib/pq bounds them.
func TestStallWithoutAPoolLimit(t *testing.T) {
	t.Parallel()
	contract.EachDriver(t, func(t *testing.T, driver string) {
		t.Parallel()

		p, url := newProxy(t, contract.NewDatabase(t))
		db := contract.Open(t, driver, url)
		db.SetMaxIdleConns(20)

		locker, err := pglocker.NewWithMigrateDB(t.Context(), db, &pglocker.Config{})
		contract.Must(t, err)

		_, err = locker.CreateLock(t.Context(), "a")
		contract.Must(t, err)

		var conns []*sql.Conn

		for range 20 { // which will be found dead
			conn, err := db.Conn(t.Context())
			contract.Must(t, err)

			conns = append(conns, conn)
		}

		for _, conn := range conns {
			contract.Must(t, conn.Close())
		}

		p.onAnswer(func() fate { return mute })

		ctx, stop := context.WithTimeout(t.Context(), 8*time.Second)
		defer stop()

		var callers sync.WaitGroup

		for range 16 {
			callers.Go(func() {
				for ctx.Err() == nil {
					ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
					_, _ = locker.AcquireLock(ctx, "a", time.Second)

					cancel()
				}
			})
		}

		callers.Wait()
		p.mu.Lock()
		most := len(p.conns) / 2 // each has two ends
		p.mu.Unlock()

		t.Logf("%d connections", most)

		if driver == "postgres" && most > 64 {
			t.Errorf("%d connections", most)
		}

		p.onAnswer(nil)
		p.cutAll()
		contract.CloseLocker(t, locker)
	})
}
