package pglockergocron_test

import (
	"context"
	"database/sql"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/lockertest"
	"github.com/ismurov/pglocker/pgtesting"
)

// fault is what happens while a process runs the job. It returns when that is over.
type fault func(t *testing.T, s *schedulers, holder *worker)

// TestEachTickRunsOnce: three schedulers, each a process, on one database, with clocks that differ by two seconds. While
// a process runs the job, with a Locker the one whose clock is ahead, it is killed, or stopped for more than a tick, or it
// leaves as on a planned shutdown, or the database is restarted.
//
// The clocks are the schedulers' own: Go doesn't ask the C library, so libfaketime changes nothing for it.
func TestEachTickRunsOnce(t *testing.T) {
	t.Parallel()

	for name, fault := range map[string]fault{"killed": kill, "stopped": stop, "left": leave, "restarted": restart} {
		for _, way := range []string{wayLocker, wayElector} {
			t.Run(name+", "+way, func(t *testing.T) {
				t.Parallel()

				s := startSchedulers(t, way, name == "restarted")
				first := s.await(t, 0).tick
				struck := s.await(t, first+1)
				fault(t, s, s.workers[struck.pid])

				over := s.newest(t)
				s.check(t, first, struck.tick, over, s.await(t, over+4).tick)
			})
		}
	}
}

func kill(t *testing.T, _ *schedulers, holder *worker) {
	must(t, holder.Process.Kill())
}

func leave(t *testing.T, _ *schedulers, holder *worker) {
	must(t, holder.input.Close())
}

func stop(t *testing.T, s *schedulers, holder *worker) {
	must(t, holder.Process.Signal(syscall.SIGSTOP))
	t.Cleanup(func() { _ = holder.Process.Signal(syscall.SIGCONT) }) // in vain after the end

	// It goes on while another runs, or has just run, a later tick. Its own timer of the ticks that it has missed fires
	// at once.
	s.await(t, s.newest(t)+1)
	must(t, holder.Process.Signal(syscall.SIGCONT))
}

func restart(t *testing.T, s *schedulers, _ *worker) {
	must(t, s.server.Restart(t.Context(), pgtesting.FastShutdown))
}

// schedulers are three processes on one database.
type schedulers struct {
	way string
	db  *sql.DB
	// server is theirs alone, nil if they share one.
	server  *pgtesting.Server
	workers map[int]*worker

	mu sync.Mutex
	// stalls are the times in which the machine, or its disk, did next to nothing. No scheduler can be on time then.
	stalls []stall // mu guards it
}

type stall struct{ from, to time.Time }

// worker is a process. It leaves when its input is closed.
type worker struct {
	*exec.Cmd
	input io.Closer
}

func startSchedulers(t *testing.T, way string, alone bool) *schedulers {
	t.Helper()

	s := &schedulers{way: way, workers: map[int]*worker{}}

	var url string

	if alone {
		s.server = lockertest.StartServer(t)
		url = s.server.URL()
		s.db = databases.Open(t, url)
		must(t, migrate(t.Context(), s.db))
	} else {
		url = databases.NewDatabase(t).String()
		s.db = databases.Open(t, url)
	}

	go s.watch(t.Context())

	for _, ahead := range []string{"2s", "1s", "0s"} {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envWorker+"="+ahead, envURL+"="+url, envWay+"="+way)
		cmd.Stderr = os.Stderr

		input, err := cmd.StdinPipe()
		must(t, err)
		must(t, cmd.Start())
		t.Cleanup(func() {
			_ = input.Close()
			_ = cmd.Wait() // one was killed
		})

		s.workers[cmd.Process.Pid] = &worker{cmd, input}

		// With an Elector the first leads. The others' clocks are behind its.
		if way == wayElector && ahead == "2s" {
			s.awaitLeader(t)
		}
	}

	return s
}

// watch writes ten times a second, and notes when that takes long.
func (s *schedulers) watch(ctx context.Context) {
	for from := time.Now(); ctx.Err() == nil; {
		time.Sleep(100 * time.Millisecond)

		_, _ = s.db.ExecContext(ctx, `UPDATE beat SET at = clock_timestamp()`) // fails while the server is restarted

		to := time.Now()
		if to.Sub(from) > aheadMost {
			s.mu.Lock()
			s.stalls = append(s.stalls, stall{from, to})
			s.mu.Unlock()
		}

		from = to
	}
}

// stalled reports whether the machine stalled near a tick.
func (s *schedulers) stalled(tick int64) bool {
	at := time.Unix(tick*int64(interval/time.Second), 0)

	s.mu.Lock()
	defer s.mu.Unlock()

	return slices.ContainsFunc(s.stalls, func(s stall) bool {
		return s.from.Before(at.Add(interval)) && s.to.After(at.Add(-interval))
	})
}

func (s *schedulers) awaitLeader(t *testing.T) {
	t.Helper()

	locker, err := pglocker.New(s.db, &pglocker.Config{})
	must(t, err)

	election, err := locker.NewElection(electionName, hold)
	must(t, err)
	awaitTerm(t, election)
}

// run is one of the job.
type run struct {
	tick int64
	pid  int
}

// await waits for a run of the tick, or of a later one. It returns the first.
func (s *schedulers) await(t *testing.T, tick int64) (r run) {
	t.Helper()

	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		err := s.db.QueryRowContext(t.Context(), `SELECT tick, pid FROM runs WHERE tick >= $1 ORDER BY tick LIMIT 1`, tick).Scan(&r.tick, &r.pid)
		if err == nil {
			return r
		}
	}

	t.Fatalf("tick %d doesn't run", tick)

	return run{}
}

// newest is the latest tick that any clock has had.
func (s *schedulers) newest(t *testing.T) int64 {
	t.Helper()

	return tickOf(time.Now().Add(aheadMost))
}

// check checks what ran from the first tick to before the last. A process was struck during one tick, and the fault was
// over by another: between these, ticks may be left out while there is no leader, or no database, but don't run twice.
func (s *schedulers) check(t *testing.T, first, struck, over, last int64) {
	t.Helper()

	rows, err := s.db.QueryContext(t.Context(), `SELECT tick, pid FROM runs WHERE tick BETWEEN $1 AND $2`, first, last-1)
	must(t, err)
	defer rows.Close()

	runs := map[int64][]int{}

	for rows.Next() {
		var r run

		must(t, rows.Scan(&r.tick, &r.pid))
		runs[r.tick] = append(runs[r.tick], r.pid)
	}

	must(t, rows.Err())

	mayMiss := s.server != nil || s.way == wayElector

	for tick := first; tick < last; tick++ {
		excused := mayMiss && struck < tick && tick <= over+1

		if s.stalled(tick) {
			t.Logf("the machine stalled near tick %d, which ran %d times", tick, len(runs[tick]))

			continue
		}

		if n := len(runs[tick]); n > 1 || n == 0 && !excused {
			t.Errorf("tick %d of %d to %d ran %d times (struck at %d, over by %d): %s", tick, first, last-1, n, struck, over, s.shown(runs))
		}
	}
}

func (s *schedulers) shown(runs map[int64][]int) string {
	var text strings.Builder

	for _, tick := range slices.Sorted(maps.Keys(runs)) {
		fmt.Fprintf(&text, "%d by %v; ", tick, runs[tick])
	}

	return text.String()
}

func migrate(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, `
		CREATE TABLE runs (tick BIGINT, pid INT);
		CREATE TABLE beat AS SELECT clock_timestamp() AS at`); err != nil {
		return err
	}

	return pglocker.MigrateDB(ctx, db, &pglocker.Config{})
}
