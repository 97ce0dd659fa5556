//go:build unix

package pgtesting

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// repository serves a jar, for any system, and its checksum.
type repository struct {
	jar      []byte
	checksum string
	status   int // instead of 200
	hang     bool

	mu    sync.Mutex
	paths []string // what was asked for
}

func (r *repository) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	r.paths = append(r.paths, request.URL.Path)
	r.mu.Unlock()
	switch {
	case r.status != 0:
		w.WriteHeader(r.status)
	case strings.HasSuffix(request.URL.Path, ".jar.sha256"):
		_, _ = w.Write([]byte(r.checksum))
	case r.hang:
		w.Header().Set("Content-Length", "100000000")
		_, _ = w.Write(make([]byte, 5<<20))
		<-request.Context().Done()
	default:
		w.Header().Set("Content-Length", strconv.Itoa(len(r.jar)))
		_, _ = w.Write(r.jar)
	}
}

func (r *repository) asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.paths...)
}

// downloading makes a server find nothing installed.
func downloading(t *testing.T, r *repository, cache string) ServerOption {
	t.Helper()
	web := httptest.NewServer(r)
	t.Cleanup(web.Close)
	return func(o *serverOptions) {
		o.binDir, o.folders = "", nil
		o.cacheDir = cache
		o.repository = web.URL + "/maven/"
	}
}

func TestDownloadedServer(t *testing.T) {
	jar := jarOf(t, sharedServer(t).BinDir())
	sum := sha256.Sum256(jar)
	repo := &repository{jar: jar, checksum: hex.EncodeToString(sum[:])}
	cache, tmp := filepath.Join(openTempDir(t), "cache"), openTempDir(t)
	t.Setenv("TMPDIR", tmp)
	var progress bytes.Buffer
	opts := []ServerOption{downloading(t, repo, cache), WithProgress(&progress)}

	// Another user must be able to run what a careful one has downloaded.
	umask := syscall.Umask(0o022)
	syscall.Umask(umask)
	s := startServer(t, append(opts, func(o *serverOptions) {
		syscall.Umask(0o077)
		o.pickPort = func() int {
			syscall.Umask(umask)
			return randomPort()
		}
	})...)
	if want := filepath.Join(cache, "postgresql-"+string(embeddedpostgres.V18), "bin"); s.BinDir() != want {
		t.Errorf("BinDir() = %s, want %s", s.BinDir(), want)
	}
	if err := open(t, "pgx", s.URL()).PingContext(t.Context()); err != nil {
		t.Error(err)
	}
	paths := repo.asked()
	if len(paths) != 2 || !strings.HasPrefix(paths[0], "/maven/io/zonky/test/postgres/embedded-postgres-binaries-") {
		t.Errorf("asked for %v", paths)
	}
	for _, text := range []string{"downloading version 18.", "downloaded 4 of ", "is unpacked\n"} {
		if !strings.Contains(progress.String(), text) {
			t.Errorf("progress %q lacks %q", &progress, text)
		}
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	wantEmpty(t, tmp)
	if found, _ := filepath.Glob(filepath.Join(cache, "*")); len(found) != 1 {
		t.Errorf("in the cache: %v", found)
	}

	// The second time there is nothing to download.
	progress.Reset()
	startServer(t, opts...)
	if again := repo.asked(); len(again) != len(paths) {
		t.Errorf("asked again for %v", again[len(paths):])
	}
	if progress.Len() != 0 {
		t.Errorf("progress without a download: %s", &progress)
	}
}

func TestDownloadFailures(t *testing.T) {
	skipShort(t)
	for _, c := range []struct {
		name string
		repo *repository
		want string
	}{
		{"not found", &repository{status: http.StatusNotFound}, "404"},
		{"server error", &repository{status: http.StatusInternalServerError}, "500"},
		{"wrong checksum", &repository{jar: []byte("jar"), checksum: "0123"}, "checksums do not match"},
		{"no archive", &repository{jar: []byte("jar"), checksum: hexSHA256("jar")}, "zip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cache, tmp := openTempDir(t), openTempDir(t)
			t.Setenv("TMPDIR", tmp)
			_, err := StartServer(t.Context(), downloading(t, c.repo, cache))
			wantErrorText(t, err, "PostgreSQL is not installed here", c.want)
			wantEmpty(t, cache)
			wantEmpty(t, tmp)
		})
	}
}

func TestDownloadIsCancelled(t *testing.T) {
	skipShort(t)
	cache, tmp := openTempDir(t), openTempDir(t)
	t.Setenv("TMPDIR", tmp)
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	progress := writerFunc(func(line []byte) (int, error) {
		if bytes.HasPrefix(line, []byte("downloaded 4 of 95 MB")) {
			cancel(cause)
		}
		return len(line), nil
	})
	_, err := StartServer(ctx, downloading(t, &repository{hang: true}, cache), WithProgress(progress))
	if !errors.Is(err, cause) {
		t.Errorf("the error is %v, want %v", err, cause)
	}
	wantEmpty(t, cache)
	wantEmpty(t, tmp)
}

func TestTheLibraryTellsItsRepository(t *testing.T) {
	if got := repositoryOf(embeddedpostgres.DefaultConfig()); !strings.HasPrefix(got, "https://") {
		t.Errorf("repositoryOf = %q", got)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func hexSHA256(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}
