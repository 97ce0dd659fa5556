//go:build unix

package pgtesting

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"go.uber.org/goleak"

	"github.com/ismurov/pglocker/internal/tmpfs"
)

// The drivers that everything with SQL in it is tested on.
var drivers = []string{"pgx", "postgres"}

// lazyServer is a server for many tests, started by the first.
type lazyServer struct {
	once   sync.Once
	server *Server
	err    error
}

func (l *lazyServer) get(t *testing.T) *Server {
	t.Helper()
	skipShort(t)
	l.once.Do(func() { l.server, l.err = StartServer(context.Background(), WithProgress(os.Stderr)) })
	if l.err != nil {
		t.Fatal(l.err)
	}
	return l.server
}

var calm, abused lazyServer

func TestMain(m *testing.M) {
	if mode := os.Getenv(childVariable); mode != "" {
		os.Exit(runChild(mode, m))
	}
	flag.Parse()
	tmpfs.Use()
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	code := m.Run()
	for _, l := range []*lazyServer{&calm, &abused} {
		if l.server == nil {
			continue
		}
		if err := l.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	return code
}

// sharedServer is for tests that do the server no harm.
func sharedServer(t *testing.T) *Server { return calm.get(t) }

// abusedServer is for tests, not parallel ones, that do. It is up and not frozen.
func abusedServer(t *testing.T) *Server {
	t.Helper()
	s := abused.get(t)
	err := s.Thaw()
	if errors.Is(err, ErrServerDown) {
		err = s.Start(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func startServer(t *testing.T, opts ...ServerOption) *Server {
	t.Helper()
	skipShort(t)
	s, err := StartServer(t.Context(), append([]ServerOption{WithProgress(os.Stderr)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func skipShort(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a server")
	}
}

func open(t *testing.T, driver, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func execute(t *testing.T, db *sql.DB, statement string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func query[T any](t *testing.T, db *sql.DB, statement string, args ...any) T {
	t.Helper()
	var value T
	if err := db.QueryRowContext(t.Context(), statement, args...).Scan(&value); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	return value
}

// eventually is for what other processes do, which sends no event here.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// openTempDir is t.TempDir for files that other users are to reach.
func openTempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "open-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// processesOf returns the processes of the server with that data directory.
func processesOf(t *testing.T, dataDir string) []process {
	t.Helper()
	found, err := findProcesses((&Server{dir: filepath.Dir(dataDir)}).owns)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// wantNothingLeft checks that there are neither processes nor files of a server
// that has been stopped.
func wantNothingLeft(t *testing.T, dataDir string) {
	t.Helper()
	if left := processesOf(t, dataDir); len(left) != 0 {
		t.Errorf("processes are left: %v", left)
	}
	if dir := filepath.Dir(dataDir); exists(dir) {
		t.Errorf("%s is left", dir)
	}
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		t.Errorf("%s is left in %s", entry.Name(), dir)
	}
}

func wantErrorText(t *testing.T, err error, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one with %q", texts)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("the error %q does not contain %q", err, text)
		}
	}
}
