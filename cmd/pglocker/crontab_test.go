//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// crontab is what examples/ops/crontab has: variables, and command lines by the id of the lock.
func crontab(t *testing.T) (variables []string, lines map[string]string) {
	t.Helper()

	text, err := os.ReadFile(filepath.Join("..", "..", "examples", "ops", "crontab"))
	must(t, err)

	lines = make(map[string]string)
	assignment, job := regexp.MustCompile(`^\w+=`), regexp.MustCompile(`^(?:[\d*/,-]+\s+){5}(.*)$`)

	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)

		switch found := job.FindStringSubmatch(line); {
		case line == "" || line[0] == '#':
		case assignment.MatchString(line):
			variables = append(variables, line)
		case found != nil && !strings.Contains(line, "%"): // which means something else to cron
			fields := strings.Fields(found[1])
			lines[fields[len(fields)-1]] = found[1] // by the last word: the program or its only argument
		default:
			t.Fatalf("not a line of a crontab: %s", line)
		}
	}

	return variables, lines
}

// machines run the lines of the crontab.
type machines struct {
	*bed
	variables []string
	lines     map[string]string
	// bin has the programs.
	bin string
}

// newMachines makes a machine on which the jobs say who runs them, and run until they get a signal.
func newMachines(t *testing.T) *machines {
	t.Helper()

	m := &machines{bed: newBed(t), bin: t.TempDir()}
	m.variables, m.lines = crontab(t)
	m.program("pglocker", asCommand+`=1 exec "`+testProgram(t)+`" "$@"`)

	for _, job := range []string{"import-orders", "nightly-report", "compress-logs", "archive-orders"} {
		m.program(job, `echo "${PGLOCKER_TOKEN:-$PGLOCKER_TOKEN_1} $PGLOCKER_OWNER $PPID"; trap "" TERM; while [ ! -e "$MACHINES/done" ]; do sleep 0.02; done`)
	}

	return m
}

func (m *machines) program(name, script string) {
	m.t.Helper()
	must(m.t, os.WriteFile(filepath.Join(m.bin, name), []byte("#!/bin/sh\n"+script+"\n"), 0o755))
}

// finish has all jobs end.
func (m *machines) finish() {
	m.t.Helper()
	must(m.t, os.WriteFile(filepath.Join(m.bin, "done"), nil, 0o600))
}

// cron runs a line on a machine, as cron does: by sh, in an environment of its own.
func (m *machines) cron(machine, line string) *process {
	m.t.Helper()

	command := m.lines[line]
	if command == "" {
		m.t.Fatalf("the crontab has no line that ends with %s", line)
	}

	cmd := m.command()
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", command}
	cmd.Env = append(append([]string{"GOCOVERDIR=" + m.t.TempDir()}, m.variables...), m.env...)
	cmd.Env = append(cmd.Env, "PGSERVICE=", "PATH="+m.bin+":/usr/bin:/bin", "MACHINES="+m.bin,
		"PGLOCKER_OWNER="+machine, "PGLOCKER_TTL=5s", "PGLOCKER_GRACE=100ms")

	return startProcess(m.t, cmd)
}

// job is what a job says of itself.
type job struct {
	token   int64
	machine string
	// parent is the process that runs it.
	parent int
}

func (p *process) job() (j job) {
	p.t.Helper()

	line := p.line()
	if _, err := fmt.Sscan(line, &j.token, &j.machine, &j.parent); err != nil {
		p.t.Fatalf("%q: %v", line, err)
	}

	return j
}

// tick runs the line on two machines until the job runs on one of them, as cron does every few minutes.
func (m *machines) tick(line string, on ...string) (*process, job) {
	m.t.Helper()

	for bounded(m.t).Err() == nil {
		for _, machine := range on {
			p := m.cron(machine, line)
			if said, runs := <-p.lines; runs {
				p.lines <- said // there is room for it

				return p, p.job()
			}

			p.ends(0) // another machine has the job: no mail
		}
	}

	m.t.Fatal("the job doesn't run any more")

	return nil, job{}
}

// TestCrontabTakesOver: three machines have the crontab. The one that runs the job is killed, the next one is
// stopped. Each time another one takes over, with a larger token, and two never run the job at once but for a
// stopped one.
func TestCrontabTakesOver(t *testing.T) {
	t.Parallel()

	m := newMachines(t)
	started := []*process{m.cron("a", "--new"), m.cron("b", "--new"), m.cron("c", "--new")}

	var (
		runs   *process
		first  job
		others []string
	)

	for i, p := range started {
		machine := string(rune('a' + i))

		said, ok := <-p.lines
		if !ok {
			p.ends(0)

			others = append(others, machine)

			continue
		}

		if runs != nil {
			t.Fatal("the job runs on two machines")
		}

		p.lines <- said
		runs, first = p, p.job()
	}

	if runs == nil {
		t.Fatalf("the job runs on no machine, not on %q", others)
	}

	must(t, syscall.Kill(first.parent, syscall.SIGKILL))
	runs.silent()

	runs, second := m.tick("--new", others...)
	must(t, syscall.Kill(second.parent, syscall.SIGSTOP))

	third, last := m.tick("--new", first.machine)
	if first.token >= second.token || second.token >= last.token {
		t.Errorf("the tokens are %d, %d and %d", first.token, second.token, last.token)
	}

	must(t, syscall.Kill(second.parent, syscall.SIGCONT))
	runs.silent()
	runs.ends(74)

	m.finish()
	third.silent()
	third.ends(0)
}

// TestCrontabOnceANight: the machines' clocks differ, and the job is short. It runs once.
func TestCrontabOnceANight(t *testing.T) {
	t.Parallel()

	m := newMachines(t)
	m.finish()

	runs := 0

	for _, machine := range []string{"a", "b", "c"} {
		p := m.cron(machine, "nightly-report")
		for range p.lines {
			runs++
		}

		p.ends(0)
	}

	if runs != 1 {
		t.Errorf("it ran %d times", runs)
	}
}

// TestCrontabTwoAtATime: the job runs on every machine, and on two at a time.
func TestCrontabTwoAtATime(t *testing.T) {
	t.Parallel()

	m := newMachines(t)
	first, second := m.cron("a", "compress-logs"), m.cron("b", "compress-logs")
	first.job()
	second.job()

	third := m.cron("c", "compress-logs")
	m.waitedFor("pglocker:semaphore:compress-logs:")
	m.finish()
	first.ends(0)
	second.ends(0)
	third.job()
	third.ends(0)
}

// TestCrontabNeedsBoth: the archive waits for the import, and no import runs beside it.
func TestCrontabNeedsBoth(t *testing.T) {
	t.Parallel()

	m := newMachines(t)
	imports := m.cron("a", "--new")
	imports.job()

	archives := m.cron("b", "archive-orders")
	m.waitedFor("import-orders")
	m.finish()
	imports.ends(0)
	archives.job()
	archives.ends(0)
}

// TestOpsCommandLines: the command lines of the other examples are understood.
func TestOpsCommandLines(t *testing.T) {
	t.Parallel()

	for file, pattern := range map[string]string{
		"cronjob.yaml":      `command: \["pglocker", "(.*)"\]`,
		"scheduler.service": `ExecStart=/usr/local/bin/pglocker (.*)`,
	} {
		text, err := os.ReadFile(filepath.Join("..", "..", "examples", "ops", file))
		must(t, err)

		found := regexp.MustCompile(pattern).FindStringSubmatch(string(text))
		if found == nil {
			t.Fatalf("%s has no command line", file)
		}

		args := strings.Fields(strings.ReplaceAll(found[1], `", "`, " "))

		cmd, rest, err := newRoot(new(app)).Find(args)
		must(t, err)
		must(t, cmd.ParseFlags(rest))

		if ids, program, err := splitProgram(cmd.Flags().Args()); err != nil || len(ids) != 1 || len(program) != 1 {
			t.Errorf("%s: %q runs %q under %q: %v", file, args, program, ids, err)
		}
	}
}
