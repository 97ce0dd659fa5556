//go:build unix

package pglocker_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// BenchmarkKeepAlive holds 10,000 locks of one Locker, with a TTL of 30 s, for
// three minutes, or as long as PGLOCKER_HOLD says (10s under -short), and prints
// what that costs the process and the server while nothing else happens. One
// operation is the whole of it: run it with -benchtime=1x. Losing a lock fails it.
func BenchmarkKeepAlive(b *testing.B) {
	const (
		locks     = 10_000
		ttl       = 30 * time.Second
		acquirers = 16
	)

	hold := 3 * time.Minute
	if testing.Short() {
		hold = 10 * time.Second
	}

	if text := os.Getenv("PGLOCKER_HOLD"); text != "" {
		var err error

		hold, err = time.ParseDuration(text)
		contract.Must(b, err)
	}

	server := durableServer(b)
	direct := openBench(b, server)

	contract.Must(b, pglocker.MigrateDB(b.Context(), direct, &pglocker.Config{}))

	c := contract.NewCounted(b, server.URL(), nil, acquirers)

	for range b.N {
		var (
			before = heapInUse()
			held   = make([]*pglocker.Lock, locks)
			group  sync.WaitGroup
			began  = time.Now()
		)

		for g := range acquirers {
			group.Go(func() {
				for i := g; i < locks; i += acquirers {
					lock, err := c.Locker.TryLock(b.Context(), fmt.Sprintf("held-%05d", i), ttl)
					if err != nil {
						b.Error(err)

						return
					}

					held[i] = lock
				}
			})
		}

		group.Wait()

		if b.Failed() {
			return
		}

		b.Logf("took %d locks in %s", locks, time.Since(began).Round(time.Millisecond))

		// From here on there are renewals and nothing else, and the Locker's own
		// connections.
		c.DB.SetMaxIdleConns(0)
		heap := heapInUse() - before
		statements, client, postgres := c.Statements.Load(), clientCPU(b), serverCPU(b, server)
		began = time.Now()

		time.Sleep(hold) // not a wait for something: the length of the measurement

		span := time.Since(began)
		perMinute := float64(time.Minute) / float64(span)
		connections := contract.Query[int](b, direct, `SELECT count(*) FROM pg_stat_activity
			WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()`)

		b.ReportMetric(float64(c.Statements.Load()-statements)/span.Seconds(), "statements/s")
		b.ReportMetric((clientCPU(b)-client).Seconds()*perMinute, "client-cpu-s/min")
		b.ReportMetric((serverCPU(b, server)-postgres).Seconds()*perMinute, "server-cpu-s/min")
		b.ReportMetric(float64(heap)/locks, "heap-B/lock")
		b.ReportMetric(float64(connections), "connections")

		for _, lock := range held {
			if err := lock.Context().Err(); err != nil {
				b.Fatalf("lost: %v", lock.Status())
			}
		}

		c.DB.SetMaxIdleConns(acquirers)

		for g := range acquirers {
			group.Go(func() {
				for i := g; i < locks; i += acquirers {
					if err := held[i].Unlock(b.Context()); err != nil {
						b.Error(err)
					}
				}
			})
		}

		group.Wait()
	}
}

// heapInUse is what lives on the heap.
func heapInUse() int64 {
	var stats runtime.MemStats

	runtime.GC()
	runtime.GC() // what the first one's finalizers let go of
	runtime.ReadMemStats(&stats)

	return int64(stats.HeapAlloc)
}

// clientCPU is what this process has used.
func clientCPU(b *testing.B) time.Duration {
	b.Helper()

	var usage syscall.Rusage

	contract.Must(b, syscall.Getrusage(syscall.RUSAGE_SELF, &usage))

	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// serverCPU is what all processes of the server have used that live, and those
// that have ended.
func serverCPU(b *testing.B, server *pgtesting.Server) (used time.Duration) {
	b.Helper()

	text, err := os.ReadFile(filepath.Join(server.DataDir(), "postmaster.pid"))
	contract.Must(b, err)

	pid, _, _ := bytes.Cut(text, []byte("\n"))

	files, err := filepath.Glob("/proc/[0-9]*/stat")
	contract.Must(b, err)

	if len(files) == 0 {
		b.Skip("needs /proc")
	}

	for _, file := range files {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}

		// proc(5): the name may contain anything; after it come the state (3), the
		// parent (4), and in hundredths of a second utime (14) and stime (15), and
		// cutime and cstime of the children that were waited for.
		fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
		parent, ticks := string(fields[1]), fields[11:13]

		switch {
		case filepath.Base(filepath.Dir(file)) == string(pid):
			ticks = fields[11:15]
		case parent != string(pid):
			continue
		}

		for _, field := range ticks {
			n, err := strconv.Atoi(string(field))
			contract.Must(b, err)

			used += time.Duration(n) * 10 * time.Millisecond
		}
	}

	return used
}
