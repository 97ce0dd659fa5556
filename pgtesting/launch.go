package pgtesting

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const startTimeout = 2 * time.Minute

// create fills the server's directory and starts the server, on another port if the first is
// taken.
func (s *Server) create(ctx context.Context, o *serverOptions) error {
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return fmt.Errorf("pgtesting: the server's directory: %w", err)
	}
	var err error
	s.log, err = os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_EXCL|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("pgtesting: the server's log: %w", err)
	}
	passwords := filepath.Join(s.dir, "password")
	if err := os.WriteFile(passwords, []byte("postgres\n"), 0o600); err != nil {
		return fmt.Errorf("pgtesting: the superuser's password: %w", err)
	}
	for _, path := range []string{s.dir, passwords} {
		if err := s.account.own(path); err != nil {
			return fmt.Errorf("pgtesting: the server's directory: %w", err)
		}
	}

	initdb := s.command(ctx, "initdb",
		"-D", s.DataDir(), "--username=postgres", "--pwfile="+passwords,
		"--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync")
	// With SIGKILL its children would leave shared memory behind.
	initdb.Cancel = func() error { return initdb.Process.Signal(sigTerm) }
	initdb.WaitDelay = immediateTimeout
	if err := initdb.Run(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return s.logged(fmt.Errorf("pgtesting: initdb: %w", err), 0)
	}
	if err := os.Remove(passwords); err != nil {
		return fmt.Errorf("pgtesting: the superuser's password: %w", err)
	}
	if err := s.configure(o.settings); err != nil {
		return fmt.Errorf("pgtesting: postgresql.conf: %w", err)
	}

	for range 20 {
		s.port = o.pickPort()
		if err = s.launch(ctx); !errors.Is(err, errPortTaken) {
			break
		}
	}
	return err
}

func (s *Server) configure(settings []setting) error {
	f, err := os.OpenFile(filepath.Join(s.DataDir(), "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	var text strings.Builder
	text.WriteString("\n# Settings of package pgtesting.\n")
	for _, one := range settings {
		text.WriteString(one.line())
	}
	_, err = f.WriteString(text.String())
	return errors.Join(err, f.Close())
}

// command is one of PostgreSQL's programs, run as the server's account in a session of its
// own, which no signal of a terminal reaches.
func (s *Server) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.binDir, program), args...)
	cmd.Dir = s.dir
	cmd.Env = serverEnvironment()
	cmd.Stdout = s.log
	cmd.Stderr = s.log
	cmd.SysProcAttr = s.account.attributes()
	return cmd
}

var errPortTaken = errors.New("pgtesting: the server's port is taken")

// launch starts the server and waits until it accepts connections. With an error, no process
// of the server is left. The caller holds mu, unless it is the only one that has the server.
func (s *Server) launch(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout,
		fmt.Errorf("not ready after %v", startTimeout))
	defer cancel()
	info, err := s.log.Stat()
	if err != nil {
		return fmt.Errorf("pgtesting: the server's log: %w", err)
	}
	offset := info.Size()

	// ctx has no effect once the server is up.
	cmd := s.command(context.WithoutCancel(ctx), "postgres",
		"-D", s.DataDir(), "-p", strconv.Itoa(s.port), "-c", "cluster_name="+filepath.Base(s.dir))
	cmd.Env = append(cmd.Env, s.extraEnv...)
	if s.main, err = startPostmaster(cmd); err != nil {
		return fmt.Errorf("pgtesting: postgres: %w", err)
	}
	s.frozen = false

	if err := s.awaitReady(ctx); err != nil {
		err = errors.Join(fmt.Errorf("pgtesting: the server does not start: %w", err), s.killAll())
		if strings.Contains(s.logTail(offset, 64<<10), "could not bind") {
			err = errors.Join(errPortTaken, err)
		}
		return s.logged(err, offset)
	}
	return nil
}

// awaitReady reads the status in the postmaster's lock file, as pg_ctl does.
func (s *Server) awaitReady(ctx context.Context) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-s.main.done:
			return fmt.Errorf("it ended (%w)", s.main.err)
		case <-tick.C:
		}
		file := s.lockFile()
		if file.pid == s.main.pid() && (file.status == "ready" || file.status == "standby") {
			return nil
		}
	}
}

// lockFile is what the server's postmaster.pid says. It is zero if there is no such file.
type lockFile struct {
	pid    int
	shmID  string // of the System V shared memory segment
	status string
}

func (s *Server) lockFile() lockFile {
	text, _ := os.ReadFile(filepath.Join(s.DataDir(), "postmaster.pid"))
	lines := bytes.Split(text, []byte("\n"))
	var file lockFile
	if len(lines) > 0 {
		file.pid, _ = strconv.Atoi(string(bytes.TrimSpace(lines[0])))
	}
	if len(lines) > 6 {
		if words := bytes.Fields(lines[6]); len(words) == 2 {
			file.shmID = string(words[1])
		}
	}
	if len(lines) > 7 {
		file.status = string(bytes.TrimSpace(lines[7]))
	}
	return file
}

// postmaster is the server's main process, a child of this one. It owns a goroutine that
// waits for its end and closes done.
type postmaster struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended; to be read after done
}

func startPostmaster(cmd *exec.Cmd) (*postmaster, error) {
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &postmaster{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		if p.err = cmd.Wait(); p.err == nil {
			p.err = errors.New("exit status 0")
		}
	}()
	return p, nil
}

func (p *postmaster) pid() int { return p.cmd.Process.Pid }

func (p *postmaster) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

func (p *postmaster) running() bool {
	if p == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *postmaster) endedWithin(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-p.done:
		return true
	case <-timer.C:
		return false
	}
}
