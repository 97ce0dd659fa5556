package pglockerotel_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/lockertest"
	"github.com/ismurov/pglocker/pgtesting"
)

// worker is a process of workerMain, and its metrics.
type worker struct {
	program
	process *os.Process
	input   io.Closer
}

func startWorker(t *testing.T, url string, ttl time.Duration) *worker {
	t.Helper()

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envURL+"="+url, envTTL+"="+ttl.String())
	cmd.Stderr = os.Stderr

	input, err := cmd.StdinPipe()
	must(t, err)
	output, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = input.Close()
		_ = cmd.Process.Signal(syscall.SIGCONT) // or a stopped one wouldn't end
		_ = cmd.Wait()                          // one was killed
	})

	metrics, err := bufio.NewReader(output).ReadString('\n')
	must(t, err)

	return &worker{program{t: t, url: strings.TrimSpace(metrics)}, cmd.Process, input}
}

// startPair returns one worker that holds the lock, and another that waits for it.
func startPair(t *testing.T, url string, ttl time.Duration) (holder, waiter *worker) {
	t.Helper()

	holder = startWorker(t, url, ttl)
	holder.awaitValue(1, "pglocker_held")

	waiter = startWorker(t, url, ttl)
	waiter.awaitValue(1, "pglocker_waiting")
	waiter.awaitValue(1, "pglocker_listener", "state=hearing")

	return holder, waiter
}

// wantHeld waits until the worker's metrics say that it waited, was granted the lock, and has lost none.
func (w *worker) wantHeld() {
	w.t.Helper()

	w.awaitValue(1, "pglocker_held")
	w.awaitValue(1, "pglocker_wait_duration_seconds", "outcome=granted")
	w.awaitValue(0, "pglocker_waiting")
	w.awaitValue(0, "pglocker_lost_total")
}

const lease = 10 * time.Second

// TestTheHolderIsKilled: its metrics are gone with it, and those of the next holder tell no loss.
func TestTheHolderIsKilled(t *testing.T) {
	t.Parallel()

	holder, waiter := startPair(t, databases.NewDatabase(t).String(), lease)

	must(t, holder.process.Kill())
	waiter.wantHeld()
}

// TestTheHolderIsStopped: for longer than its lease. When it goes on, it tells one loss, and that it waits.
func TestTheHolderIsStopped(t *testing.T) {
	t.Parallel()

	holder, waiter := startPair(t, databases.NewDatabase(t).String(), lease)

	must(t, holder.process.Signal(syscall.SIGSTOP))
	waiter.wantHeld()
	must(t, holder.process.Signal(syscall.SIGCONT))

	holder.awaitValue(1, "pglocker_lost_total")
	holder.awaitValue(1, "pglocker_hold_duration_seconds", "outcome=lost")
	holder.awaitValue(0, "pglocker_held")
	holder.awaitValue(1, "pglocker_waiting")
	waiter.wantHeld()
}

// TestTheDatabaseRestarts: renewals fail, and succeed again. What is held and what waits stays counted once.
func TestTheDatabaseRestarts(t *testing.T) {
	t.Parallel()

	server := lockertest.StartServer(t)
	must(t, pglocker.MigrateDB(t.Context(), databases.Open(t, server.URL()), &pglocker.Config{}))

	holder, waiter := startPair(t, server.URL(), time.Minute)
	renewed := func() float64 {
		n, _ := holder.scrape("pglocker_renew_margin")

		return n
	}

	// It stays down until a renewal has failed: a restart can fall between two of them.
	must(t, server.Shutdown(t.Context(), pgtesting.FastShutdown))
	await(t, "a renewal has failed", func() bool {
		n, _ := holder.scrape("pglocker_renew_duration_seconds", "outcome=error")

		return n > 0
	})
	must(t, server.Start(t.Context()))

	before := renewed()
	await(t, "it is renewed again", func() bool { return renewed() > before })
	waiter.awaitValue(1, "pglocker_listener", "state=hearing")
	waiter.awaitValue(0, "pglocker_listener", "state=polling")

	for _, w := range []*worker{holder, waiter} {
		w.awaitValue(1, map[bool]string{true: "pglocker_held", false: "pglocker_waiting"}[w == holder])
		w.awaitValue(0, "pglocker_lost_total")
	}

	must(t, holder.input.Close())
	waiter.wantHeld()
}
