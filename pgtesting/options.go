package pgtesting

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// ServerOption is an option of StartServer.
type ServerOption func(*serverOptions)

type serverOptions struct {
	settings   []setting
	env        []string
	binDir     string
	progress   io.Writer
	repository string

	users    []string   // that may run the server for root, best first
	parents  []string   // folders for the server's directory, best first
	folders  []string   // where PostgreSQL may be
	cacheDir string     // empty: chosen by defaultCacheDir
	pickPort func() int // a port to try next
}

type setting struct{ name, value string }

// WithSetting sets a setting in the server's postgresql.conf. It overrides those that
// StartServer documents. The value needs no escaping.
//
// StartServer returns an error for the settings port and cluster_name, for a malformed name
// and for a value with NUL.
func WithSetting(name, value string) ServerOption {
	return func(o *serverOptions) { o.settings = append(o.settings, setting{name, value}) }
}

// WithEnv adds a variable, NAME=value, to the environment of the server, which is that of
// the test process without PG*, LC_*, LANG, LANGUAGE and TZ. initdb doesn't get it.
func WithEnv(variable string) ServerOption {
	return func(o *serverOptions) { o.env = append(o.env, variable) }
}

// WithBinDir names the folder of the postgres and initdb to run. It overrides the variable
// PGTESTING_BIN_DIR. The account that runs the server must be able to reach the folder.
func WithBinDir(dir string) ServerOption {
	return func(o *serverOptions) { o.binDir = dir }
}

// binDirVariable lets the same tests run on one version after another without a change.
const binDirVariable = "PGTESTING_BIN_DIR"

// WithProgress has StartServer write the progress of a download to w, in whole lines. It
// writes from one goroutine at a time, and not after it has returned. It writes nothing if
// PostgreSQL is installed.
func WithProgress(w io.Writer) ServerOption {
	return func(o *serverOptions) { o.progress = w }
}

// WithBinaryRepository sets the URL of the Maven repository from which StartServer downloads
// PostgreSQL. The default is that of github.com/fergusstrange/embedded-postgres.
func WithBinaryRepository(url string) ServerOption {
	return func(o *serverOptions) { o.repository = url }
}

func newServerOptions(opts []ServerOption) (*serverOptions, error) {
	o := &serverOptions{
		binDir:   os.Getenv(binDirVariable),
		progress: io.Discard,
		users:    []string{"postgres", "nobody"},
		parents:  temporaryFolders(),
		folders:  installFolders(),
		pickPort: randomPort,
		settings: []setting{
			{"listen_addresses", "127.0.0.1"},
			// No socket file: its path would have to stay under 108 bytes.
			{"unix_socket_directories", ""},
			{"max_connections", "200"},
			// A killed server leaves its writes in the kernel's cache. Only a machine that
			// loses power loses them.
			{"fsync", "off"},
			// The other kinds outlive a killed server, as files in /dev/shm.
			{"dynamic_shared_memory_type", "mmap"},
			// The package reads the errors in the log.
			{"lc_messages", "C"},
			{"timezone", "UTC"},
			{"log_timezone", "UTC"},
		},
	}
	for _, opt := range opts {
		opt(o)
	}
	for _, s := range o.settings {
		if err := s.check(); err != nil {
			return nil, err
		}
	}
	for _, variable := range o.env {
		if name, _, ok := strings.Cut(variable, "="); !ok || name == "" || strings.ContainsRune(variable, 0) {
			return nil, fmt.Errorf("pgtesting: %q is not of the form NAME=value", variable)
		}
	}
	if o.progress == nil {
		o.progress = io.Discard
	}
	return o, nil
}

var settingName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$`)

func (s setting) check() error {
	if !settingName.MatchString(s.name) {
		return fmt.Errorf("pgtesting: %q is not the name of a setting", s.name)
	}
	switch strings.ToLower(s.name) {
	case "port", "cluster_name":
		return fmt.Errorf("pgtesting: the setting %s is the package's own", s.name)
	}
	if strings.ContainsRune(s.value, 0) {
		return errors.New("pgtesting: the value of the setting " + s.name + " contains NUL")
	}
	return nil
}

var settingEscapes = strings.NewReplacer(`\`, `\\`, `'`, `''`, "\n", `\n`, "\r", `\r`)

func (s setting) line() string {
	return s.name + " = '" + settingEscapes.Replace(s.value) + "'\n"
}

// The ports are below those of outgoing connections, which could take the port of a server
// that is down.
const (
	firstPort = 15000
	lastPort  = 32000
)

// randomPort returns a port on which no process listens. Another process may take it before
// the server does; create tries another then.
func randomPort() int {
	var port int
	for range 100 {
		port = firstPort + rand.IntN(lastPort-firstPort)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = l.Close()
			break
		}
	}
	return port
}
