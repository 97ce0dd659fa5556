//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestRunOften: a thousand runs leave no process, no held lock and no zombie.
func TestRunOften(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	mark := "PGLOCKER_TEST_LOOP=" + t.TempDir()
	b.env = append(b.env, mark)

	runs := 1000
	if testing.Short() {
		runs = 50
	}

	var (
		left    atomic.Int64
		workers sync.WaitGroup
		codes   [256]atomic.Int64
	)

	left.Store(int64(runs))

	for worker := range 4 {
		workers.Go(func() {
			args := []string{"run", "loop" + strconv.Itoa(worker%2), "true"}
			if worker == 3 {
				args = []string{"run", "-n", "loop0", "true"}
			}

			for left.Add(-1) >= 0 {
				cmd := b.command(args...)
				_ = cmd.Run()
				codes[cmd.ProcessState.ExitCode()&0xff].Add(1)
			}
		})
	}

	workers.Wait()

	for code := range codes {
		if n := codes[code].Load(); n > 0 && code != 0 && code != exitHeld {
			t.Errorf("exit code %d, %d times", code, n)
		}
	}

	for _, id := range []string{"loop0", "loop1"} {
		if status := b.status(id); status.Owner != "" || status.HeldAt(time.Now()) {
			t.Errorf("%s is held by %q", id, status.Owner)
		}
	}

	// Other tests have children that ended just now, and the server's processes end after the command's.
	eventually(t, "no process is left", func() bool { return len(processesWith(t, mark)) == 0 })
	eventually(t, "no connection is left", func() bool {
		var connections int

		must(t, b.db.QueryRowContext(t.Context(), `SELECT count(*) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'pglocker run'`).Scan(&connections))

		return connections == 0
	})
}

// processesWith returns the processes that have a variable in their environment, and this process's zombies.
func processesWith(t *testing.T, variable string) (found []string) {
	t.Helper()

	files, err := filepath.Glob("/proc/[0-9]*/environ")
	must(t, err)

	for _, file := range files {
		pid := filepath.Base(filepath.Dir(file))

		text, err := os.ReadFile(file)
		if err == nil && strings.Contains(string(text), variable) || zombieOfThis(pid) {
			found = append(found, pid)
		}
	}

	return found
}

func zombieOfThis(pid string) bool {
	text, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}

	_, rest, _ := strings.Cut(string(text), ") ")
	name, _, _ := strings.Cut(string(text), ")")

	return strings.HasPrefix(rest, "Z "+strconv.Itoa(os.Getpid())+" ") && strings.Contains(name, filepath.Base(os.Args[0])[:8])
}
