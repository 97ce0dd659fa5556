package pglockergocron_test

import (
	"database/sql"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestEachTickRunsOnce: three schedulers, each a process, with clocks that differ by two seconds. The process whose clock
// is ahead is killed while it runs the job.
func TestEachTickRunsOnce(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	db := databases.Open(t, url)
	workers := map[int]*exec.Cmd{}

	for _, ahead := range []string{"0s", "1s", "2s"} {
		worker := exec.Command(os.Args[0])
		worker.Env = append(os.Environ(), envWorker+"="+ahead, envURL+"="+url)
		worker.Stderr = os.Stderr

		input, err := worker.StdinPipe()
		must(t, err)
		must(t, worker.Start())
		t.Cleanup(func() {
			_ = input.Close()
			_ = worker.Wait() // one was killed
		})

		workers[worker.Process.Pid] = worker
	}

	first, _ := await(t, db, 0)
	_, holder := await(t, db, first+1)
	must(t, workers[holder].Process.Kill())

	last, _ := await(t, db, first+4) // by when the tick before is over, by all clocks

	var once, times, killed int64

	must(t, db.QueryRowContext(t.Context(), `
		SELECT count(DISTINCT tick), count(*), count(*) FILTER (WHERE pid = $3 AND tick > $4)
		  FROM runs WHERE tick BETWEEN $1 AND $2`, first, last-1, holder, first+1).Scan(&once, &times, &killed))

	if want := last - first; once != want || times != want || killed != 0 {
		t.Errorf("of %d ticks %d ran, %d times; the killed process ran %d", want, once, times, killed)
	}
}

// await waits for a run of the tick, or of a later one, and returns which, and by what process.
func await(t *testing.T, db *sql.DB, tick int64) (ran int64, pid int) {
	t.Helper()

	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		err := db.QueryRowContext(t.Context(), `SELECT tick, pid FROM runs WHERE tick >= $1 ORDER BY tick LIMIT 1`, tick).Scan(&ran, &pid)
		if err == nil {
			return ran, pid
		}
	}

	t.Fatalf("tick %d doesn't run", tick)

	return 0, 0
}
