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

// Errors of Server's methods.
var (
	// ErrServerStopped: Stop was called.
	ErrServerStopped = errors.New("pgtesting: the server was stopped for good")
	// ErrServerDown: the method needs a server that runs.
	ErrServerDown = errors.New("pgtesting: the server is down")
	// ErrServerUp: the method needs a server that is down.
	ErrServerUp = errors.New("pgtesting: the server is running")
	// ErrServerFrozen: the method needs a server that is not frozen.
	ErrServerFrozen = errors.New("pgtesting: the server is frozen")
)

// Server is a PostgreSQL server that ends with the process that started it. Its methods are
// safe for concurrent use. Those that act on the server, and Log, run one at a time. URL,
// Port, Version, VersionNum, DataDir and BinDir return at once, and always the same.
type Server struct {
	dir      string // has all files; its last element is also the cluster_name
	binDir   string
	version  version
	port     int
	account  *account
	extraEnv []string // of the server alone
	log      *os.File // of initdb and the server
	guard    *watchdog

	mu      sync.Mutex  // guards the rest
	main    *postmaster // nil before the first launch; it may have ended
	frozen  bool
	stopped bool
}

// StartServer starts a PostgreSQL server with a new, empty cluster on a free port of
// 127.0.0.1, and returns when it accepts connections. The caller must call Stop. If the
// process ends without, even by SIGKILL, a watchdog process stops the server and removes its
// files within seconds.
//
// The superuser is "postgres" with the password "postgres". Every user of the machine can
// connect: don't use it on a machine that you share with people you don't trust.
//
// The binaries are, in this order:
//   - those in the folder of WithBinDir, or of the environment variable PGTESTING_BIN_DIR,
//   - the newest of version 12 or later on PATH or in the usual install folders,
//   - downloaded ones, which stay in the user's cache directory.
//
// For root, the server runs as the user "postgres" if there is one, else as "nobody":
// PostgreSQL refuses to run as root.
//
// These settings differ from PostgreSQL's defaults: listen_addresses is 127.0.0.1,
// unix_socket_directories is empty, max_connections is 200, fsync is off (commits survive
// Kill, but no power cut), dynamic_shared_memory_type is mmap and timezone is UTC. The
// cluster has the locale C and the encoding UTF-8.
//
// If ctx ends first, StartServer leaves nothing behind and returns ctx's cause. ctx has no
// effect afterwards. An error of the server has the end of its log in its text. On a system
// that isn't Unix the error is errors.ErrUnsupported.
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
	// From here on no file is left behind.
	if s.guard, err = startWatchdog(s.dir); err != nil {
		return nil, err
	}
	if err := s.create(ctx, o); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

// URL returns postgres://postgres:postgres@127.0.0.1:PORT/postgres?sslmode=disable, the
// superuser's URL of the database "postgres".
func (s *Server) URL() string {
	return "postgres://postgres:postgres@127.0.0.1:" + strconv.Itoa(s.port) + "/postgres?sslmode=disable"
}

// Port returns the TCP port, which Start keeps.
func (s *Server) Port() int { return s.port }

// Version returns the version as PostgreSQL writes it: "15.6", "18.1", "19beta1".
func (s *Server) Version() string { return s.version.text }

// VersionNum returns the version as server_version_num has it: 150006 for 15.6.
func (s *Server) VersionNum() int { return s.version.num }

// DataDir returns the cluster's directory, which Stop removes. It belongs to the account that
// runs the server.
func (s *Server) DataDir() string { return filepath.Join(s.dir, "data") }

// BinDir returns the folder of the server's programs, with symbolic links resolved.
func (s *Server) BinDir() string { return s.binDir }

// Log returns the last 16 KiB of the server's log.
func (s *Server) Log() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logTail(0, 16<<10)
}

// How long Stop waits for each kind of shutdown before it tries the next. After an immediate
// one PostgreSQL itself kills its processes within 5 seconds.
const (
	fastTimeout      = 5 * time.Second
	immediateTimeout = 8 * time.Second
)

// Stop shuts the server down for good, in any state, removes all its files, and returns when
// both is done. It begins with a fast shutdown, makes it an immediate one after 5 seconds, and
// kills the server 8 seconds later. A second call returns nil.
func (s *Server) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	s.stopped = true

	if s.main.running() && !s.frozen {
		s.main.signal(sigInt)
		if !s.main.endedWithin(fastTimeout) {
			s.main.signal(sigQuit)
			s.main.endedWithin(immediateTimeout)
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

// logTail returns the last size bytes that were logged from offset on.
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
