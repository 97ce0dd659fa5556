package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// ErrNoPooler: pgbouncer is not installed.
var ErrNoPooler = errors.New("cluster: pgbouncer is not installed")

// poolerConfig gives each transaction whichever of a few server connections is free.
const poolerConfig = `[databases]
* = host=127.0.0.1 port=%d user=` + clientRole + ` password=` + clientPassword + `
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 12
max_client_conn = 1000
server_login_retry = 0.1
ignore_startup_parameters = extra_float_digits
`

// Pooler is a pgbouncer in transaction mode.
type Pooler struct {
	program, folder string
	port            int
	cmd             *exec.Cmd
	log             bytes.Buffer
}

func findPooler() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if program, err := exec.LookPath(name); err == nil {
			return program, nil
		}
	}

	return "", ErrNoPooler
}

func startPooler(serverPort int) (*Pooler, error) {
	program, err := findPooler()
	if err != nil {
		return nil, err
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cluster: pooler: %w", err)
	}

	p := &Pooler{program: program, port: listener.Addr().(*net.TCPAddr).Port}
	_ = listener.Close()

	if p.folder, err = os.MkdirTemp("", "pglocker-verify-pooler-"); err != nil {
		return nil, fmt.Errorf("cluster: pooler: %w", err)
	}

	// The pooler runs as another user, where this is root.
	err = errors.Join(os.Chmod(p.folder, 0o755),
		os.WriteFile(p.config(), fmt.Appendf(nil, poolerConfig, serverPort, p.port), 0o644), p.start())
	if err != nil {
		_ = os.RemoveAll(p.folder)

		return nil, fmt.Errorf("cluster: pooler: %w", err)
	}

	return p, nil
}

func (p *Pooler) config() string  { return filepath.Join(p.folder, "pgbouncer.ini") }
func (p *Pooler) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

func (p *Pooler) start() error {
	p.cmd = exec.Command(p.program, p.config())
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	if os.Geteuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return err
		}

		uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
		if err != nil {
			return err
		}

		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}

	if err := p.cmd.Start(); err != nil {
		return err
	}

	for range 500 {
		conn, err := net.Dial("tcp", p.address())
		if err == nil {
			return conn.Close()
		}

		time.Sleep(10 * time.Millisecond)
	}

	return fmt.Errorf("it doesn't listen: %s", p.log.String())
}

// Restart kills the pooler with all connections, and starts it again.
func (p *Pooler) Restart() error {
	p.end()

	return p.start()
}

func (p *Pooler) end() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // ends as signals end it
}

func (p *Pooler) stop() {
	p.end()
	_ = os.RemoveAll(p.folder)
}
