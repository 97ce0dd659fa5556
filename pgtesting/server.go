package pgtesting

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// Errors of Server's methods, for errors.Is.
var (
	// ErrServerStopped: the server was stopped for good by Stop.
	ErrServerStopped = errors.New("pgtesting: the server was stopped for good")
	// ErrServerDown: the call needs a running server, and it is shut down or killed.
	ErrServerDown = errors.New("pgtesting: the server is down")
	// ErrServerUp: the call needs a server that is down, and it runs.
	ErrServerUp = errors.New("pgtesting: the server is running")
	// ErrServerFrozen: the call needs the server's cooperation, and it is frozen.
	ErrServerFrozen = errors.New("pgtesting: the server is frozen")
)

// Server is a PostgreSQL server that lives no longer than the process that
// started it. Its methods may be called from several goroutines and run one at a
// time, URL, Port, Version, VersionNum, DataDir and BinDir excepted, which
// answer at once and the same all the server's life.
type Server struct {
	dir      string // holds everything; its last element is also the cluster_name
	binDir   string
	version  version
	port     int
	account  *account
	extraEnv []string // of the server alone
	log      *os.File // what initdb and the server print
	guard    *watchdog

	mu      sync.Mutex  // held by every method that asks or changes what follows
	main    *postmaster // nil before the first launch; it may have ended
	frozen  bool
	stopped bool
}

// StartServer creates a database cluster in a new directory and starts a server
// on it, on a free port of 127.0.0.1, with the superuser "postgres", password
// "postgres". It returns once the server accepts connections. Anybody who can
// run programs on the machine can connect as that superuser: keep off machines
// that are shared with people you don't trust.
//
// It runs the postgres in the folder that the environment variable
// PGTESTING_BIN_DIR names. Without that it runs the newest of version 12 or later
// on PATH or in the usual install folders. Where there is none it downloads one, once per user of the
// machine; WithProgress shows it. PostgreSQL refuses to run as root: there the
// server runs as the user "postgres" if there is one, else as "nobody".
//
// Settings differ from PostgreSQL's defaults in: listen_addresses 127.0.0.1, no
// Unix socket, max_connections 200, fsync off (the data dies with the test;
// commits survive Kill nevertheless), dynamic_shared_memory_type mmap, timezone
// UTC. The cluster has the locale C and the encoding UTF-8.
//
// The caller ends the server with Stop. When the process ends without, even by
// SIGKILL, a watchdog process stops the server and removes its files within
// seconds.
//
// Cancelling ctx makes StartServer clean up and return ctx's cause; it means
// nothing after StartServer has returned. An error of the server's carries the
// end of its log. On Windows the error is errors.ErrUnsupported.
func StartServer(ctx context.Context, opts ...ServerOption) (*Server, error) {
	o, err := newServerOptions(opts)
	if err != nil {
		return nil, err
	}
	account, err := serverAccount(o.users)
	if err != nil {
		return nil, err
	}
	found, err := chooseBinaries(ctx, o, account)
	if err != nil {
		return nil, err
	}
	parent, err := reachableFolder(ctx, account, o.parents)
	if err != nil {
		return nil, err
	}

	s := &Server{
		dir:      filepath.Join(parent, randomName(directoryPrefix)),
		binDir:   found.dir,
		version:  found.version,
		account:  account,
		extraEnv: o.env,
	}
	// The watchdog first: from here on nothing can be left behind.
	if s.guard, err = startWatchdog(s.dir); err != nil {
		return nil, err
	}
	if err := s.create(ctx, o); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// URL returns the address of the database "postgres" for its superuser,
// postgres://postgres:postgres@127.0.0.1:PORT/postgres?sslmode=disable.
func (s *Server) URL() string {
	return "postgres://postgres:postgres@127.0.0.1:" + strconv.Itoa(s.port) + "/postgres?sslmode=disable"
}

// Port returns the TCP port. It stays the same when the server is started again.
func (s *Server) Port() int { return s.port }

// Version returns the version as PostgreSQL writes it: "15.6", "18.1", "19beta1".
func (s *Server) Version() string { return s.version.text }

// VersionNum returns the version as server_version_num has it: 150006 for 15.6.
func (s *Server) VersionNum() int { return s.version.num }

// DataDir returns the cluster's directory. It belongs to the account that runs
// the server and is gone after Stop.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// BinDir returns the folder of the server's programs, symbolic links resolved.
func (s *Server) BinDir() string { return s.binDir }

// Log returns the last bytes, at most 16 KiB, of what the server has logged.
func (s *Server) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logTail(0, 16<<10)
}

// How long Stop waits for each way of shutting down before it tries the next.
// PostgreSQL itself kills what ignores an immediate shutdown after 5 seconds.
const (
	fastPatience      = 5 * time.Second
	immediatePatience = 8 * time.Second
)

// Stop shuts the server down (fast; if that takes over 5 seconds, immediately;
// if that takes over 8, by SIGKILL), also when it is frozen or down, and removes
// every file of it. It waits until all that is done. Another call does nothing
// and returns nil.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true

	if s.main.running() && !s.frozen {
		s.main.signal(sigInt)
		if !s.main.endedWithin(fastPatience) {
			s.main.signal(sigQuit)
			s.main.endedWithin(immediatePatience)
		}
	}
	err := s.killAll()
	if s.log != nil {
		err = errors.Join(err, s.log.Close())
	}
	if removeErr := removeAll(s.dir); removeErr != nil {
		return errors.Join(err, removeErr, s.guard.alarm())
	}
	return errors.Join(err, s.guard.dismiss())
}

// logTail returns what was logged from offset on, its last size bytes at most.
func (s *Server) logTail(offset, size int64) string {
	if s.log == nil {
		return ""
	}
	info, err := s.log.Stat()
	if err != nil {
		return ""
	}
	offset = max(offset, info.Size()-size)
	text, _ := io.ReadAll(io.NewSectionReader(s.log, offset, info.Size()-offset))
	return string(bytes.TrimSpace(text))
}

// logged adds to err what was logged from offset on.
func (s *Server) logged(err error, offset int64) error {
	if tail := s.logTail(offset, 4<<10); tail != "" {
		return fmt.Errorf("%w; the end of its log:\n%s", err, tail)
	}
	return err
}
