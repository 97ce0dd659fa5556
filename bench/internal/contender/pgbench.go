package contender

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ismurov/pglocker/bench/internal/server"
)

// Pgbench is the limit of the server: the program pgbench sends two prepared UPDATEs of one
// row for each pair, from C and without any locking.
type Pgbench struct {
	Server *server.Postgres
	Table  Table
	Path   string
}

// NamePgbench is the contender without a client of its own.
const NamePgbench = "pgbench"

type PgbenchRun struct {
	Pairs     int
	Elapsed   time.Duration
	Latencies []time.Duration // sorted
	ClientCPU time.Duration
	ServerCPU time.Duration
}

// Run has clients update a row each, for length rounded up to whole seconds.
func (p *Pgbench) Run(ctx context.Context, clients int, length time.Duration) (run PgbenchRun, err error) {
	dir, err := os.MkdirTemp("", "pglocker-bench-")
	if err != nil {
		return run, err
	}

	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	update := fmt.Sprintf("UPDATE public.%s SET generation = generation + 1 WHERE lock_id = 'lock-' || :client_id;\n", p.Table)

	script := filepath.Join(dir, "pair.sql")
	if err := os.WriteFile(script, []byte(update+update), 0o600); err != nil {
		return run, err
	}

	seconds := int((length + time.Second - 1) / time.Second)
	cmd := exec.CommandContext(ctx, p.Path, "--no-vacuum", "--protocol=prepared", "--file="+script,
		"--client="+strconv.Itoa(clients), "--jobs="+strconv.Itoa(min(clients, 2)), "--time="+strconv.Itoa(seconds),
		"--log", p.Server.URL())
	cmd.Dir = dir

	client := server.ProgramsCPU()
	used, _ := p.Server.CPU()

	out, err := cmd.CombinedOutput()
	if err != nil {
		return run, fmt.Errorf("pgbench: %w\n%s", err, out)
	}

	run.ClientCPU = server.ProgramsCPU() - client
	after, _ := p.Server.CPU()
	run.ServerCPU = after - used

	// Its own rate leaves out the time in which it connects.
	for line := range strings.Lines(string(out)) {
		if rate, ok := strings.CutPrefix(line, "tps = "); ok {
			perSecond, err := strconv.ParseFloat(strings.Fields(rate)[0], 64)
			if err != nil {
				return run, err
			}

			run.Elapsed = time.Duration(1e9 / perSecond)
		}
	}

	logs, err := filepath.Glob(filepath.Join(dir, "pgbench_log.*"))
	if err != nil {
		return run, err
	}

	for _, log := range logs {
		if run.Latencies, err = readLatencies(run.Latencies, log); err != nil {
			return run, err
		}
	}

	slices.Sort(run.Latencies)
	run.Pairs = len(run.Latencies)
	run.Elapsed *= time.Duration(run.Pairs)

	return run, nil
}

// readLatencies adds the latencies of one of pgbench's logs: its third column, in
// microseconds.
func readLatencies(to []time.Duration, path string) ([]time.Duration, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()

	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}

		micros, err := strconv.ParseInt(fields[2], 10, 64)
		if err != nil {
			return nil, err
		}

		to = append(to, time.Duration(micros)*time.Microsecond)
	}

	return to, lines.Err()
}
