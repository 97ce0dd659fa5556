package pgtesting

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ShutdownMode is one of PostgreSQL's ways to shut down.
type ShutdownMode int

const (
	// SmartShutdown waits until every client has disconnected.
	SmartShutdown ShutdownMode = iota
	// FastShutdown rolls open transactions back, disconnects the clients and writes a
	// checkpoint.
	FastShutdown
	// ImmediateShutdown ends all processes at once. The next start recovers from the
	// write-ahead log.
	ImmediateShutdown
)

const signalTimeout = 20 * time.Second

// Freeze stops every process of the server with SIGSTOP and returns when they have stopped.
// Connections stay open without an answer; the kernel accepts new ones, which hang. Programs
// that the server has started, by COPY ... PROGRAM or archive_command, go on.
//
// Freeze does nothing on a frozen server. It returns ErrServerDown or ErrServerStopped if
// the server doesn't run.
func (s *Server) Freeze() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(true); err != nil {
		return err
	}
	s.frozen = true
	return s.freezeAll()
}

// Thaw lets a frozen server go on. It does nothing on a server that is not frozen. It
// returns ErrServerDown or ErrServerStopped if the server doesn't run.
func (s *Server) Thaw() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(true); err != nil {
		return err
	}
	processes, err := findProcesses(s.owns)
	if err != nil {
		return err
	}
	for _, p := range processes {
		p.signal(sigCont)
	}
	s.frozen = false
	return nil
}

// Kill ends every process of the server with SIGKILL, frozen or not, and returns when they
// are gone. They are stopped first: none sees another one end. The data stays, with every
// acknowledged commit; Start recovers it. Kill returns ErrServerDown or ErrServerStopped if
// the server doesn't run.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(true); err != nil {
		return err
	}
	// A process that does not stop in time is killed all the same.
	_ = s.freezeAll()
	return s.killAll()
}

// Start starts a server that is down, on the same data and port, and returns when it accepts
// connections. If ctx ends first, or 2 minutes pass, the server is down again. The error is
// ctx's cause if ctx has ended, ErrServerUp if the server runs, and ErrServerStopped after
// Stop.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(false); err != nil {
		return err
	}
	// If another process killed the postmaster, its children may still run.
	if err := s.killAll(); err != nil {
		return err
	}
	return s.launch(ctx)
}

// Shutdown shuts the server down and returns when all its processes have ended. If ctx ends
// first, Shutdown returns ctx's cause and the shutdown goes on; a call with a harder mode
// may follow. Shutdown returns ErrServerFrozen on a frozen server, and ErrServerDown or
// ErrServerStopped if the server doesn't run.
func (s *Server) Shutdown(ctx context.Context, mode ShutdownMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shutdown(ctx, mode)
}

// Restart is Shutdown and, if that succeeds, Start.
func (s *Server) Restart(ctx context.Context, mode ShutdownMode) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.shutdown(ctx, mode); err != nil {
		return err
	}
	return s.launch(ctx)
}

func (s *Server) shutdown(ctx context.Context, mode ShutdownMode) error {
	if err := s.check(true); err != nil {
		return err
	}
	if s.frozen {
		return ErrServerFrozen
	}
	var sig syscall.Signal
	switch mode {
	case SmartShutdown:
		sig = sigTerm
	case FastShutdown:
		sig = sigInt
	case ImmediateShutdown:
		sig = sigQuit
	default:
		return fmt.Errorf("pgtesting: no such shutdown mode: %d", mode)
	}
	s.main.signal(sig)
	select {
	case <-s.main.done:
		return s.killAll()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *Server) check(up bool) error {
	switch {
	case s.stopped:
		return ErrServerStopped
	case up && !s.main.running():
		return ErrServerDown
	case !up && s.main.running():
		return ErrServerUp
	}
	return nil
}

// owns reports whether the command line is that of a process of the server. Server processes
// show the cluster_name in their titles. The postmaster, its children before they have a
// title, and initdb name the data directory.
func (s *Server) owns(commandLine string) bool {
	return strings.HasPrefix(commandLine, "postgres: "+filepath.Base(s.dir)+": ") ||
		strings.Contains(commandLine, " -D "+s.DataDir()+" ")
}

// freezeAll stops every process. The postmaster may fork during a look, so two looks in a
// row must find none that runs.
func (s *Server) freezeAll() error {
	deadline := time.Now().Add(signalTimeout)
	for quiet := 0; quiet < 2; {
		processes, err := findProcesses(s.owns)
		if err != nil {
			return err
		}
		quiet++
		for _, p := range processes {
			if !p.stopped {
				quiet = 0
				p.signal(sigStop)
			}
		}
		if time.Now().After(deadline) {
			return errors.New("pgtesting: not every process of the server stops")
		}
		if quiet == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	return nil
}

// killAll kills all processes of the server, waits until they are gone, and removes the
// shared memory and the lock file that a killed server leaves.
func (s *Server) killAll() error {
	deadline := time.Now().Add(signalTimeout)
	for {
		processes, err := findProcesses(s.owns)
		if err != nil {
			return err
		}
		if len(processes) == 0 {
			break
		}
		for _, p := range processes {
			p.signal(sigKill)
		}
		if time.Now().After(deadline) {
			return errors.New("pgtesting: not every process of the server dies")
		}
		time.Sleep(time.Millisecond)
	}
	if s.main != nil {
		<-s.main.done
	}
	s.frozen = false
	if id := s.lockFile().shmID; id != "" {
		removeSharedMemory(id)
	}
	err := os.Remove(filepath.Join(s.DataDir(), "postmaster.pid"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("pgtesting: the killed server's lock file: %w", err)
	}
	return nil
}
