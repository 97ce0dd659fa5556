package pglocker_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// BenchmarkHandOver hands one contended lock from waiter to waiter, each holding
// it for no time at all: 16 waiters in one Locker, in four with pools of their
// own, and in four with local hand-overs switched off. An operation is one
// hand-over. "floor" is a loop of durable one-row UPDATEs on one connection, the
// limit of what one commit per hand-over allows.
//
// gap-p50-ms is from the call of Unlock to the next grant, across all Lockers;
// fairness is the turns of the slowest waiter over those of the luckiest.
func BenchmarkHandOver(b *testing.B) {
	server := durableServer(b)

	b.Run("floor", func(b *testing.B) {
		db := openBench(b, server)
		conn, err := db.Conn(b.Context())
		contract.Must(b, err)
		defer conn.Close()

		_, err = conn.ExecContext(b.Context(),
			"CREATE TABLE IF NOT EXISTS floor (id text PRIMARY KEY, n bigint) WITH (fillfactor = 50)")
		contract.Must(b, err)
		_, err = conn.ExecContext(b.Context(), "INSERT INTO floor VALUES ('a', 0) ON CONFLICT DO NOTHING")
		contract.Must(b, err)
		b.ResetTimer()

		for range b.N {
			if _, err := conn.ExecContext(b.Context(), "UPDATE floor SET n = n + 1 WHERE id = $1", "a"); err != nil {
				b.Fatal(err)
			}
		}

		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "handovers/s")
	})

	for _, c := range []struct {
		name     string
		lockers  int
		localRun int
	}{
		{"one-locker", 1, -1},
		{"four-lockers", 4, -1},
		{"four-lockers-no-local", 4, 0},
	} {
		b.Run(c.name, func(b *testing.B) { benchHandOver(b, server, c.lockers, c.localRun) })
	}
}

func benchHandOver(b *testing.B, server *pgtesting.Server, lockers, localRun int) {
	const waiters = 16

	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()

	var (
		group sync.WaitGroup
		// Only the holder of the lock touches these.
		done     int
		unlocked time.Time
		gaps     = make([]time.Duration, 0, b.N)
		turns    = make([]int, waiters)
		ready    sync.WaitGroup
		start    = make(chan struct{})
		lockID   = fmt.Sprintf("contended-%d-%d", lockers, time.Now().UnixNano())
	)

	for i := range lockers {
		db := openBench(b, server)
		db.SetMaxOpenConns(8)
		db.SetMaxIdleConns(8)

		l, err := pglocker.NewWithMigrateDB(ctx, db, &pglocker.Config{Owner: fmt.Sprintf("locker-%d", i)})
		contract.Must(b, err)

		if localRun >= 0 {
			l.SetLocalRun(localRun)
		}

		defer func() { contract.Must(b, l.Close(context.Background())) }()

		for w := range waiters / lockers {
			me := i*waiters/lockers + w

			ready.Add(1)
			group.Go(func() {
				warm, err := l.Lock(ctx, fmt.Sprint(lockID, me), time.Minute)
				contract.Must(b, err)
				contract.Must(b, warm.Unlock(ctx))
				ready.Done()
				<-start

				for {
					lk, err := l.Lock(ctx, lockID, 10*time.Second)
					if err != nil {
						return
					}

					if !unlocked.IsZero() && done < b.N {
						gaps = append(gaps, time.Since(unlocked))
					}

					done++
					if done <= b.N {
						turns[me]++
					}

					if done == b.N {
						b.StopTimer()
						cancel()
					}

					unlocked = time.Now()

					if err := lk.Unlock(context.Background()); err != nil {
						b.Error(err)
					}
				}
			})
		}
	}

	ready.Wait()
	b.ResetTimer()
	close(start)
	group.Wait()

	if len(gaps) == 0 {
		return
	}

	slices.Sort(gaps)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "handovers/s")
	b.ReportMetric(gaps[len(gaps)/2].Seconds()*1000, "gap-p50-ms")
	b.ReportMetric(gaps[len(gaps)*99/100].Seconds()*1000, "gap-p99-ms")
	b.ReportMetric(float64(slices.Min(turns))/float64(slices.Max(turns)), "fairness")
}

// durableServer is a server that flushes to disk, as PostgreSQL does by default.
func durableServer(b *testing.B) *pgtesting.Server {
	b.Helper()

	server, err := pgtesting.StartServer(b.Context(),
		pgtesting.WithSetting("fsync", "on"),
		pgtesting.WithSetting("synchronous_commit", "on"),
		pgtesting.WithSetting("full_page_writes", "on"))
	contract.Must(b, err)

	b.Cleanup(func() { contract.Must(b, server.Stop()) })

	return server
}

func openBench(b *testing.B, server *pgtesting.Server) *sql.DB {
	b.Helper()

	db, err := sql.Open("pgx", server.URL())
	contract.Must(b, err)

	b.Cleanup(func() { contract.Must(b, db.Close()) })

	return db
}
