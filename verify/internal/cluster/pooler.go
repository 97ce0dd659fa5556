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
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrNoPooler: pgbouncer is not installed.
var ErrNoPooler = errors.New("cluster: pgbouncer is not installed")

// poolerConfig gives each transaction a free one of a few server connections.
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

// maxDeaths is how often a pooler may end by itself in one run.
const maxDeaths = 10

// Pooler is a pgbouncer in transaction mode. If it ends by itself it is started again, as a service
// manager would.
type Pooler struct {
	program, folder string
	port            int
	// died is called when the pooler had ended by itself and runs again.
	died func(why string)

	// mu guards what follows.
	mu sync.Mutex
	// running is nil while the pooler is stopped on purpose.
	running *pooler
	// deaths is how often it has ended by itself.
	deaths int
	// err is why the pooler was not started again.
	err error
}

// pooler is one process.
type pooler struct {
	cmd   *exec.Cmd
	log   bytes.Buffer
	ended chan struct{}
}

func findPooler() (string, error) {
	for _, name := range []string{"pgbouncer", "/usr/sbin/pgbouncer"} {
		if program, err := exec.LookPath(name); err == nil {
			return program, nil
		}
	}

	return "", ErrNoPooler
}

func startPooler(serverPort int, died func(why string)) (*Pooler, error) {
	program, err := findPooler()
	if err != nil {
		return nil, err
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("cluster: pooler: %w", err)
	}

	p := &Pooler{program: program, port: listener.Addr().(*net.TCPAddr).Port, died: died}
	_ = listener.Close()

	if p.folder, err = os.MkdirTemp("", "pglocker-verify-pooler-"); err != nil {
		return nil, fmt.Errorf("cluster: pooler: %w", err)
	}

	// The pooler runs as another user, where this is root.
	err = errors.Join(os.Chmod(p.folder, 0o755),
		os.WriteFile(p.config(), fmt.Appendf(nil, poolerConfig, serverPort, p.port), 0o644), p.Restart())
	if err != nil {
		_ = p.stop() // it fails as the start did

		return nil, fmt.Errorf("cluster: pooler: %w", err)
	}

	return p, nil
}

func (p *Pooler) config() string  { return filepath.Join(p.folder, "pgbouncer.ini") }
func (p *Pooler) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.port)) }

// Restart kills the pooler, if it runs, with all connections, and starts it.
func (p *Pooler) Restart() error {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.kill()

	return errors.Join(p.err, p.start())
}

// start needs mu.
func (p *Pooler) start() error {
	now := &pooler{cmd: exec.Command(p.program, p.config()), ended: make(chan struct{})}
	now.cmd.Stdout, now.cmd.Stderr = &now.log, &now.log
	now.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}

	if os.Geteuid() == 0 {
		nobody, err := user.Lookup("nobody")
		if err != nil {
			return err
		}

		uid, err := strconv.ParseUint(nobody.Uid, 10, 32)
		if err != nil {
			return err
		}

		now.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
	}

	if err := now.cmd.Start(); err != nil {
		return err
	}

	p.running = now

	go p.keep(now)

	for range 500 {
		conn, err := net.Dial("tcp", p.address())
		if err == nil {
			return conn.Close()
		}

		select {
		case <-now.ended:
		case <-time.After(10 * time.Millisecond):
			continue
		}

		break
	}

	p.kill()

	return fmt.Errorf("it doesn't listen: %s", now.lastWords())
}

// keep starts the pooler again if that process ends and was not killed.
func (p *Pooler) keep(now *pooler) {
	_ = now.cmd.Wait() // its log says why
	close(now.ended)

	p.mu.Lock()
	defer p.mu.Unlock()

	if p.running != now {
		return
	}

	p.running = nil
	p.deaths++

	if p.deaths > maxDeaths {
		p.err = fmt.Errorf("cluster: pooler: it ended by itself %d times: %s", p.deaths, now.lastWords())

		return
	}

	if err := p.start(); err != nil {
		p.err = fmt.Errorf("cluster: pooler: %w", err)

		return
	}

	p.died(now.lastWords())
}

// lastWords is the end of its log, once it has ended.
func (p *pooler) lastWords() string {
	lines := strings.Split(strings.TrimSpace(p.log.String()), "\n")

	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// kill needs mu.
func (p *Pooler) kill() {
	now := p.running
	if now == nil {
		return
	}

	p.running = nil
	_ = now.cmd.Process.Kill() // it may just have ended
	<-now.ended
}

func (p *Pooler) stop() error {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.kill()
	_ = os.RemoveAll(p.folder)

	return p.err
}
