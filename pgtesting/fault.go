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

// ShutdownMode is one of PostgreSQL's ways to shut a server down.
type ShutdownMode int

const (
	// SmartShutdown waits until every client has disconnected.
	SmartShutdown ShutdownMode = iota
	// FastShutdown rolls back what is open, disconnects the clients and writes a
	// checkpoint.
	FastShutdown
	// ImmediateShutdown ends everything at once; the next start recovers from the
	// write-ahead log.
	ImmediateShutdown
)

// signalPatience bounds the wait for processes to stop or die of a signal.
const signalPatience = 20 * time.Second

// Freeze halts every process of the server with SIGSTOP and returns when none of
// them runs any more. Connections stay open and nobody answers on them; new ones
// are accepted by the kernel and then hang. On a frozen server it does nothing.
// Programs that the server has started itself, by COPY ... PROGRAM or
// archive_command, go on. It returns ErrServerDown or ErrServerStopped where
// there is nothing to freeze.
func (s *Server) Freeze() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(true); err != nil {
		return err
	}
	s.frozen = true
	return s.freezeAll()
}

// Thaw lets a frozen server go on where it was halted. On a server that is not
// frozen it does nothing. It returns ErrServerDown or ErrServerStopped where
// there is nothing to thaw.
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

// Kill ends every process of the server with SIGKILL, frozen or not, so that
// none of them sees another one die, and returns when they are gone. The data
// stays as it is, every acknowledged commit included; Start recovers it. It
// returns ErrServerDown or ErrServerStopped where there is nothing to kill.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(true); err != nil {
		return err
	}
	// Best effort: what does not stop in time is killed all the same.
	_ = s.freezeAll()
	return s.killAll()
}

// Start starts a server that is down by Shutdown or Kill, or that has ended by
// itself, on the same data and port, and returns when it accepts connections.
// When ctx is cancelled first, the server is down again and the error is ctx's
// cause. Start also gives up after 2 minutes. It returns ErrServerUp on a
// running server, ErrServerStopped after Stop.
func (s *Server) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(false); err != nil {
		return err
	}
	// Where the postmaster was killed by others, its children may still be there.
	if err := s.killAll(); err != nil {
		return err
	}
	return s.launch(ctx)
}

// Shutdown shuts the server down and returns when every process of it has ended.
// When ctx ends first the shutdown goes on (a smart one for as long as clients
// are connected), and Shutdown returns ctx's cause; another, harder Shutdown may
// follow. It returns ErrServerFrozen on a frozen server, ErrServerDown or
// ErrServerStopped where nothing runs.
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

// check returns an error unless the server is up, or down, as the call needs it.
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

// owns tells by its command line whether a process is the server's. Server
// processes show the cluster_name in their titles; the postmaster, its children
// while they are being born, and initdb name the data directory.
func (s *Server) owns(commandLine string) bool {
	return strings.HasPrefix(commandLine, "postgres: "+filepath.Base(s.dir)+": ") ||
		strings.Contains(commandLine, " -D "+s.DataDir()+" ")
}

// freezeAll stops every process. The postmaster might bear a child between two
// looks, so only two looks in a row that see nobody running are proof.
func (s *Server) freezeAll() error {
	deadline := time.Now().Add(signalPatience)
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

// killAll kills what is left of the server, waits until it is gone, and removes
// what a killed server leaves so that the next start finds nothing of it.
func (s *Server) killAll() error {
	deadline := time.Now().Add(signalPatience)
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
