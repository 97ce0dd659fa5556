//go:build unix

package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ismurov/pglocker"
)

const (
	stopPatience = 2 * time.Second // for a worker to end by itself
	dropPatience = 5 * time.Second // for the schema to be dropped
)

// stage is what the demo makes and removes again: a schema and processes.
type stage struct {
	url    string
	db     *sql.DB
	schema string

	workers map[string]*process
	// events carries what all workers report.
	events chan event

	struck     sync.Once
	strikeErr  error
	strikeDone chan struct{} // closed when nobody reads events any more
}

// process is a worker's.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	// ended is closed when the process has ended and all it said is in events.
	ended chan struct{}
}

// newStage makes the schema: the lock's table, the resource that the workers
// write to, and a journal of the writes that it took.
func newStage(ctx context.Context, address string) (*stage, error) {
	db, err := sql.Open("pgx", address)
	if err != nil {
		return nil, err
	}

	s := &stage{
		url: address, db: db, schema: "pglocker_demo_" + strings.ToLower(rand.Text()[:10]),
		workers: make(map[string]*process), events: make(chan event, 64), strikeDone: make(chan struct{}),
	}

	err = pglocker.MigrateDB(ctx, db, &pglocker.Config{Scheme: s.schema})
	if err == nil {
		_, err = db.ExecContext(ctx, strings.ReplaceAll(`
CREATE TABLE {schema}.resource (highest_token BIGINT NOT NULL, writes BIGINT NOT NULL);
INSERT INTO {schema}.resource VALUES (0, 0);
CREATE TABLE {schema}.journal (number BIGINT PRIMARY KEY, token BIGINT NOT NULL, worker TEXT NOT NULL);`,
			"{schema}", s.schema))
	}

	if err != nil {
		return nil, errors.Join(fmt.Errorf("making the demo's schema: %w", err), s.strike())
	}

	return s, nil
}

// start starts a worker. It has a process group of its own, so that Ctrl-C
// reaches the demo alone, which then stops its workers in good order. If the
// demo is killed, a worker ends because its input does, and a paused one because
// the system kills it, see dieWithParent, or hangs up on a stopped process group
// that nobody is left to continue.
func (s *stage) start(name string) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}

	cmd := exec.CommandContext(context.Background(), self)
	cmd.Env = append(os.Environ(), envWorker+"="+name, envURL+"="+s.url, envSchema+"="+s.schema)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	dieWithParent(cmd.SysProcAttr)

	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}

	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}

	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting worker %s: %w", name, err)
	}

	p := &process{name: name, cmd: cmd, stdin: stdin, ended: make(chan struct{})}
	s.workers[name] = p

	// Ends with the process; strike waits for it.
	go func() {
		defer close(p.ended)

		lines := bufio.NewScanner(stdout)
		for lines.Scan() {
			s.tell(name, lines.Bytes())
		}

		_ = cmd.Wait() // how it ended is told by what it reported
	}()

	return p, nil
}

func (s *stage) tell(name string, line []byte) {
	var e event
	if err := json.Unmarshal(line, &e); err != nil {
		e = event{Kind: evFailed, Worker: name, At: time.Now(), Detail: string(line)}
	}

	select {
	case s.events <- e:
	case <-s.strikeDone:
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) signal(sig syscall.Signal) error { return p.cmd.Process.Signal(sig) }

// strike ends the workers, paused ones too, and drops the schema. Another call
// returns what the first did.
func (s *stage) strike() error {
	s.struck.Do(func() {
		close(s.strikeDone)

		for _, p := range s.workers {
			_ = p.stdin.Close()
			_ = p.signal(syscall.SIGCONT)
		}

		patience := time.After(stopPatience)

		for _, p := range s.workers {
			select {
			case <-p.ended:
				continue
			case <-patience:
			}

			_ = p.signal(syscall.SIGKILL)
			<-p.ended
		}

		s.strikeErr = errors.Join(s.drop(), s.db.Close())
	})

	return s.strikeErr
}

// drop removes the schema. Connections of killed workers may still hold a lock on
// a table in it for a moment.
func (s *stage) drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), dropPatience)
	defer cancel()

	if _, err := s.db.ExecContext(ctx, "DROP SCHEMA IF EXISTS "+s.schema+" CASCADE"); err != nil {
		return fmt.Errorf("dropping the schema %s: %w", s.schema, err)
	}

	return nil
}

// leaseLeft is how long the database keeps the lock for its holder, by its own
// clock.
func (s *stage) leaseLeft(ctx context.Context) (time.Duration, error) {
	var seconds float64

	err := s.db.QueryRowContext(ctx, fmt.Sprintf(
		"SELECT extract(epoch FROM expires_at - clock_timestamp())::float8 FROM %s.lock_statuses WHERE lock_id = $1",
		s.schema), lockID).Scan(&seconds)

	return time.Duration(seconds * float64(time.Second)), err
}

// journal is what the resource says about the writes that it took: how many, how
// many of them had a smaller token than the one before, and how many tokens were
// used by more than one worker.
func (s *stage) journal(ctx context.Context) (writes, backward, shared int, err error) {
	err = s.db.QueryRowContext(ctx, strings.ReplaceAll(`
SELECT (SELECT count(*) FROM {schema}.journal),
       (SELECT count(*) FROM {schema}.journal AS later JOIN {schema}.journal AS earlier
                          ON later.number = earlier.number + 1 AND later.token < earlier.token),
       (SELECT count(*) FROM (SELECT FROM {schema}.journal GROUP BY token HAVING count(DISTINCT worker) > 1) AS t)`,
		"{schema}", s.schema)).Scan(&writes, &backward, &shared)

	return writes, backward, shared, err
}
