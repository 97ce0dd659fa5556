//go:build unix

package contract

import (
	"bytes"
	"cmp"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// poolerConfig is a pooler that gives each transaction whichever of a few server
// connections is free. extra_float_digits is what lib/pq sends, and what every
// user of that pooler has to let pass.
const poolerConfig = `[databases]
* = host='%s' port=%s user='%s'%s
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = %s
default_pool_size = 4
max_client_conn = 1000
ignore_startup_parameters = extra_float_digits
`

// ThroughPgBouncer starts a pooler in transaction mode for the length of the test,
// and returns the URL by which a database is reached through it.
func ThroughPgBouncer(tb testing.TB, databaseURL string) string {
	tb.Helper()

	return ThroughPgBouncerIn(tb, "transaction", databaseURL)
}

// ThroughPgBouncerIn is ThroughPgBouncer in another mode.
func ThroughPgBouncerIn(tb testing.TB, mode, databaseURL string) string {
	tb.Helper()

	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program, err = exec.LookPath("/usr/sbin/pgbouncer"); err != nil {
			Missing(tb, "pgbouncer is not installed")
		}
	}

	u, err := url.Parse(databaseURL)
	if err != nil {
		tb.Fatal(err)
	}

	port := freePort(tb)
	config := filepath.Join(poolerFolder(tb), "pgbouncer.ini")
	password, _ := u.User.Password()
	quoted := strings.NewReplacer("'", "''").Replace
	credential := ""
	if password != "" { // an empty one is a syntax error there
		credential = " password='" + quoted(password) + "'"
	}

	text := fmt.Sprintf(poolerConfig,
		quoted(u.Hostname()), quoted(cmp.Or(u.Port(), "5432")), quoted(u.User.Username()), credential, port, mode)

	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		tb.Fatal(err)
	}

	startPooler(tb, program, config)

	u.Host = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	db := Open(tb, "pgx", u.String())
	Await(tb, "the pooler answers", func() bool { return db.PingContext(tb.Context()) == nil })

	return u.String()
}

// startPooler runs the pooler until the test ends, or its process.
func startPooler(tb testing.TB, program, config string) {
	tb.Helper()

	var log bytes.Buffer

	// The shell ends the pooler when its input does.
	cmd := exec.Command("/bin/sh", "-c", `"$0" "$1" & cat; kill $!; wait $!`, program, config)
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: poolerAccount(tb)}
	cmd.Dir = filepath.Dir(config)

	input, err := cmd.StdinPipe()
	if err != nil {
		tb.Fatal(err)
	}

	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() {
		_ = input.Close()
		_ = cmd.Wait() // ends as signals end it

		if tb.Failed() {
			tb.Logf("the pooler's log:\n%s", log.String())
		}
	})
}

// poolerAccount is who runs the pooler, which refuses to run as root. nil: whoever
// runs the test.
func poolerAccount(tb testing.TB) *syscall.Credential {
	tb.Helper()

	if os.Geteuid() != 0 {
		return nil
	}

	nobody, err := user.Lookup("nobody")
	if err != nil {
		Missing(tb, "the pooler does not run as root, and there is no nobody: ", err)
	}

	uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
	if err != nil {
		tb.Fatal(err)
	}

	gid, err := strconv.ParseUint(nobody.Gid, 10, 32)
	if err != nil {
		tb.Fatal(err)
	}

	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// poolerFolder is a folder that the pooler can read.
func poolerFolder(tb testing.TB) string {
	tb.Helper()

	// Not TempDir: nobody could not get into it.
	folder, err := os.MkdirTemp("", "pglocker-pooler-")
	if err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() { _ = os.RemoveAll(folder) })

	if err := os.Chmod(folder, 0o755); err != nil {
		tb.Fatal(err)
	}

	return folder
}

func freePort(tb testing.TB) int {
	tb.Helper()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}

	defer func() { _ = listener.Close() }()

	return listener.Addr().(*net.TCPAddr).Port
}
