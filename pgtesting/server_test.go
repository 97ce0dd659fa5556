//go:build unix

package pgtesting

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func TestServerIsAsDocumented(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	if want := fmt.Sprintf("postgres://postgres:postgres@127.0.0.1:%d/postgres?sslmode=disable", s.Port()); s.URL() != want {
		t.Errorf("URL() = %s, want %s", s.URL(), want)
	}
	for _, driver := range drivers {
		db := open(t, driver, s.URL())
		for name, want := range map[string]string{
			"listen_addresses":           "127.0.0.1",
			"unix_socket_directories":    "",
			"max_connections":            "200",
			"fsync":                      "off",
			"synchronous_commit":         "on",
			"dynamic_shared_memory_type": "mmap",
			"TimeZone":                   "UTC",
			"server_encoding":            "UTF8",
			"is_superuser":               "on",
			"server_version_num":         fmt.Sprint(s.VersionNum()),
			"data_directory":             s.DataDir(),
		} {
			if got := query[string](t, db, `SELECT current_setting($1)`, name); got != want {
				t.Errorf("%s: %s is %q, want %q", driver, name, got, want)
			}
		}
		if got := query[string](t, db, `SELECT version()`); !strings.HasPrefix(got, "PostgreSQL "+s.Version()+" ") {
			t.Errorf("%s: version() is %q, Version %q", driver, got, s.Version())
		}
	}
	if !strings.Contains(s.Log(), "ready to accept connections") {
		t.Errorf("Log() = %q", s.Log())
	}
	if !exists(filepath.Join(s.BinDir(), "initdb")) {
		t.Errorf("no initdb in %s", s.BinDir())
	}
	wrong := open(t, "pgx", strings.Replace(s.URL(), ":postgres@", ":wrong@", 1))
	wantErrorText(t, wrong.PingContext(t.Context()), "28P01")
}

func TestServerStopLeavesNothing(t *testing.T) {
	skipShort(t)
	for _, c := range []struct {
		name    string
		prepare func(*Server) error
	}{
		{"running", func(*Server) error { return nil }},
		{"frozen", (*Server).Freeze},
		{"killed", (*Server).Kill},
		{"shut down", func(s *Server) error { return s.Shutdown(context.Background(), FastShutdown) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			tmp := openTempDir(t)
			t.Setenv("TMPDIR", tmp)
			s := startServer(t)
			segments := sharedMemoryOf(s.DataDir())
			if err := c.prepare(s); err != nil {
				t.Fatal(err)
			}
			watchdog := s.guard.cmd.Process.Pid
			for range 2 {
				if err := s.Stop(); err != nil {
					t.Fatal(err)
				}
			}
			wantNothingLeft(t, s.DataDir())
			wantEmpty(t, tmp)
			if !isGone(t, watchdog) {
				t.Error("the watchdog is left")
			}
			awaitNoSharedMemory(t, segments)
			for name, call := range map[string]func() error{
				"Freeze":   s.Freeze,
				"Thaw":     s.Thaw,
				"Kill":     s.Kill,
				"Start":    func() error { return s.Start(t.Context()) },
				"Shutdown": func() error { return s.Shutdown(t.Context(), FastShutdown) },
				"Restart":  func() error { return s.Restart(t.Context(), FastShutdown) },
			} {
				if err := call(); !errors.Is(err, ErrServerStopped) {
					t.Errorf("%s after Stop: %v", name, err)
				}
			}
		})
	}
}

func TestServerSettings(t *testing.T) {
	t.Parallel()
	const value = "it's a \\ \"thing\",\n# 100% \\n ''"
	s := startServer(t, WithSetting("my.sample", value), WithSetting("max_connections", "33"))
	db := open(t, "pgx", s.URL())
	if got := query[string](t, db, `SHOW my.sample`); got != value {
		t.Errorf("my.sample is %q, want %q", got, value)
	}
	if got := query[string](t, db, `SHOW max_connections`); got != "33" {
		t.Errorf("max_connections is %s, want 33", got)
	}
}

func TestServerOptionsAreChecked(t *testing.T) {
	for name, opt := range map[string]ServerOption{
		"port":             WithSetting("port", "5432"),
		"cluster name":     WithSetting("Cluster_Name", "x"),
		"setting's name":   WithSetting("fsync = on\nx", "1"),
		"no name":          WithSetting("", "1"),
		"NUL in setting":   WithSetting("my.sample", "a\x00b"),
		"no variable":      WithEnv("JUST_A_NAME"),
		"NUL in variable":  WithEnv("A=a\x00b"),
		"no such folder":   WithBinDir("/nonexistent"),
		"nothing in there": WithBinDir(os.TempDir()),
	} {
		s, err := StartServer(t.Context(), opt)
		if err == nil {
			t.Errorf("%s: no error", name)
			_ = s.Stop()
		}
	}
}

func TestServerEnvironment(t *testing.T) {
	t.Setenv("PGOPTIONS", "-c nonsense=1")
	s := startServer(t, WithEnv("MY_VARIABLE=a b"))
	db := open(t, "postgres", strings.Replace(s.URL(), "?", "?options=-cdatestyle%3Diso&", 1))
	execute(t, db, `CREATE TABLE seen (line text)`)
	execute(t, db, `COPY seen FROM PROGRAM 'echo "$MY_VARIABLE, $PGOPTIONS."'`)
	if got := query[string](t, db, `SELECT line FROM seen`); got != "a b, ." {
		t.Errorf("the server's environment: %q", got)
	}
}

func TestServerFailureCarriesTheLog(t *testing.T) {
	skipShort(t)
	tmp := openTempDir(t)
	t.Setenv("TMPDIR", tmp)
	_, err := StartServer(t.Context(), WithSetting("shared_buffers", "some nonsense"))
	wantErrorText(t, err, "does not start", "shared_buffers", "some nonsense")
	wantEmpty(t, tmp)
}

func TestServerStartIsCancelled(t *testing.T) {
	skipShort(t)
	tmp := openTempDir(t)
	t.Setenv("TMPDIR", tmp)
	cause := errors.New("enough")

	t.Run("before", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if _, err := StartServer(ctx); err == nil {
			t.Error("no error")
		}
		wantEmpty(t, tmp)
	})
	t.Run("in initdb", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			eventually(t, "initdb has begun", func() bool {
				found, _ := filepath.Glob(filepath.Join(tmp, directoryPrefix+"*", "data", "global"))
				return len(found) > 0
			})
			cancel(cause)
		}()
		_, err := StartServer(ctx)
		<-done
		if !errors.Is(err, cause) {
			t.Errorf("the error is %v, want %v", err, cause)
		}
		// Killed, it would leave shared memory behind.
		wantErrorText(t, err, "caught signal")
		wantEmpty(t, tmp)
	})
	t.Run("before it is ready", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		_, err := StartServer(ctx, func(o *serverOptions) {
			o.pickPort = func() int {
				cancel(cause)
				return randomPort()
			}
		})
		if !errors.Is(err, cause) {
			t.Errorf("the error is %v, want %v", err, cause)
		}
		wantEmpty(t, tmp)
	})
}

func TestServerTriesAnotherPort(t *testing.T) {
	t.Parallel()
	skipShort(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	taken := listener.Addr().(*net.TCPAddr).Port
	tried := 0
	s := startServer(t, func(o *serverOptions) {
		o.pickPort = func() int {
			if tried++; tried <= 2 {
				return taken
			}
			return randomPort()
		}
	})
	if tried != 3 || s.Port() == taken {
		t.Errorf("port %d after %d attempts, %d was taken", s.Port(), tried, taken)
	}
	if err := open(t, "pgx", s.URL()).PingContext(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestServersSideBySide(t *testing.T) {
	t.Parallel()
	skipShort(t)
	servers := make([]*Server, 3)
	var group sync.WaitGroup
	for i := range servers {
		group.Go(func() {
			var err error
			if servers[i], err = StartServer(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
	// Stopping one must not touch another.
	for i, s := range servers {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		for _, other := range servers[i+1:] {
			if err := open(t, "pgx", other.URL()).PingContext(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestServerPassesByFoldersItCannotReach(t *testing.T) {
	skipShort(t)
	closed := filepath.Join(openTempDir(t), "closed")
	inner := filepath.Join(closed, "inner")
	if err := os.MkdirAll(inner, 0o777); err != nil {
		t.Fatal(err)
	}
	// Nobody but root can enter.
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(closed, 0o700) })
	t.Setenv("TMPDIR", inner)
	s := startServer(t)
	if strings.HasPrefix(s.DataDir(), closed) {
		t.Errorf("the server's data is in %s", s.DataDir())
	}
}

func TestServerAsNobody(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root runs servers as somebody else")
	}
	s := startServer(t, func(o *serverOptions) { o.users = []string{"nosuchuser", "nobody"} })
	db := open(t, "pgx", s.URL())
	execute(t, db, `CREATE TABLE seen (line text)`)
	execute(t, db, `COPY seen FROM PROGRAM 'id -u'`)
	nobody, err := serverAccount([]string{"nobody"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := query[string](t, db, `SELECT line FROM seen`), fmt.Sprint(nobody.credential.Uid); got != want {
		t.Errorf("the server runs as uid %s, want %s", got, want)
	}
	if _, err := serverAccount([]string{"nosuchuser"}); err == nil {
		t.Error("no error without any user")
	}
}

func TestServerWithBinDir(t *testing.T) {
	t.Parallel()
	shared := sharedServer(t)
	// As in a folder of links to the real programs.
	links := openTempDir(t)
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.Symlink(filepath.Join(shared.BinDir(), name), filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := startServer(t, WithBinDir(links))
	if s.BinDir() != shared.BinDir() {
		t.Errorf("BinDir() = %s, want %s", s.BinDir(), shared.BinDir())
	}
}

// TestServerWithBinDirVariable: the variable decides where no option does, and is no
// suggestion: what it names is run or nothing is.
func TestServerWithBinDirVariable(t *testing.T) {
	shared := sharedServer(t)
	t.Setenv("PGTESTING_BIN_DIR", "/nonexistent")

	if s, err := StartServer(t.Context()); err == nil {
		t.Errorf("started %s although the variable names no folder", s.BinDir())
		_ = s.Stop()
	}
	if s := startServer(t, WithBinDir(shared.BinDir())); s.BinDir() != shared.BinDir() {
		t.Errorf("with an option BinDir() = %s, want %s", s.BinDir(), shared.BinDir())
	}

	links := openTempDir(t)
	for _, name := range []string{"postgres", "initdb"} {
		if err := os.Symlink(filepath.Join(shared.BinDir(), name), filepath.Join(links, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PGTESTING_BIN_DIR", links)
	if s := startServer(t); s.BinDir() != shared.BinDir() {
		t.Errorf("by the variable BinDir() = %s, want %s", s.BinDir(), shared.BinDir())
	}
}

func TestServerProgressIsSilentWithoutDownload(t *testing.T) {
	t.Parallel()
	var progress bytes.Buffer
	startServer(t, WithProgress(&progress))
	if progress.Len() != 0 {
		t.Errorf("progress: %s", &progress)
	}
}
