// Package patroni is a usual cluster: three PostgreSQL servers under Patroni, an etcd that elects
// the leader, and a haproxy that leads to it, all on this machine.
package patroni

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver

	"github.com/ismurov/pglocker/pgtesting"
)

// ErrMissing: Patroni, etcd or haproxy is not installed.
var ErrMissing = errors.New("not installed")

const (
	nodeCount = 3
	// patience bounds each wait for something that the cluster does by itself.
	patience = 60 * time.Second
	// mendAfter is how long a server may take to find its place by itself.
	mendAfter = 20 * time.Second
)

// Cluster is a running one.
type Cluster struct {
	Nodes []*Node

	folder, scope, binDir string
	programs              map[string]string
	// credential is the account that runs the servers; nil is this program's own.
	credential *syscall.Credential
	keeper     *exec.Cmd
	alive      io.Closer // its end is the keeper's sign
	port       int       // haproxy's
}

// Start starts a cluster, and returns when all servers are in their places. Close ends it.
func Start(ctx context.Context) (started *Cluster, err error) {
	c := &Cluster{programs: make(map[string]string)}

	for _, name := range []string{"patroni", "etcd", "haproxy"} {
		if c.programs[name], err = find(name); err != nil {
			return nil, fmt.Errorf("%w: %s", ErrMissing, name)
		}
	}

	defer func() {
		if err != nil {
			started, err = nil, errors.Join(err, c.Close())
		}
	}()

	if err := c.prepare(ctx); err != nil {
		return nil, err
	}

	etcd := freePort()
	if err := c.startEtcd(etcd); err != nil {
		return nil, err
	}

	for n := range nodeCount {
		node := &Node{
			name: fmt.Sprintf("n%d", n+1), cluster: c, restPort: freePort(), port: freePort(), stopped: make(chan struct{}),
		}
		close(node.stopped)

		if err := errors.Join(node.configure(etcd), node.Start()); err != nil {
			return nil, err
		}

		c.Nodes = append(c.Nodes, node)
	}

	if err := c.startHaproxy(); err != nil {
		return nil, err
	}

	return c, c.AwaitHealthy(ctx)
}

// find looks where daemons are, too.
func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + program)
	}

	return path, err
}

// prepare finds out which PostgreSQL to run and as whom, which a server of pgtesting
// knows, and makes the folder.
func (c *Cluster) prepare(ctx context.Context) error {
	server, err := pgtesting.StartServer(ctx)
	if err != nil {
		return fmt.Errorf("patroni: %w", err)
	}

	info, err := os.Stat(server.DataDir())
	c.binDir = server.BinDir()

	if err := errors.Join(err, server.Stop()); err != nil {
		return fmt.Errorf("patroni: %w", err)
	}

	if c.folder, err = os.MkdirTemp("", folderPrefix); err != nil {
		return fmt.Errorf("patroni: %w", err)
	}

	c.scope = filepath.Base(c.folder)

	if err := c.startKeeper(); err != nil {
		return err
	}

	if owner := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 {
		c.credential = &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}

		if err := os.Chown(c.folder, int(owner.Uid), int(owner.Gid)); err != nil {
			return fmt.Errorf("patroni: %w", err)
		}
	}

	return nil
}

// run starts a program that ends with us, and whose output goes to a file. done is closed
// when it has ended.
func (c *Cluster) run(name string, program string, args ...string) (cmd *exec.Cmd, done chan struct{}, err error) {
	log, err := os.OpenFile(filepath.Join(c.folder, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("patroni: %w", err)
	}
	defer log.Close()

	cmd = exec.Command(program, args...)
	cmd.Dir = c.folder
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", "HOME="+c.folder)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.credential, Pdeathsig: syscall.SIGKILL, Setpgid: true}

	if err := cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("patroni: %s: %w", name, err)
	}

	done = make(chan struct{})

	go func() {
		defer close(done)
		_ = cmd.Wait() // ends as signals end it
	}()

	return cmd, done, nil
}

// Address is where the leader is reached, whichever it is.
func (c *Cluster) Address() string { return address(c.port) }

// AwaitHealthy waits until one server leads, the two others follow, one of them synchronously, and
// a commit is acknowledged. A server that doesn't find its place is made anew, as an operator
// would: after pg_rewind, an old leader may need more of the log than the new leader has.
func (c *Cluster) AwaitHealthy(ctx context.Context) error {
	healthy := func(ctx context.Context) bool {
		roles := c.roles(ctx)

		return roles["leader"] == 1 && roles["sync_standby"] == 1 && roles["leader"]+roles["sync_standby"]+roles["replica"] == nodeCount &&
			c.Leader(ctx) != nil
	}

	const what = "three servers in their places"

	if c.await(ctx, mendAfter, what, healthy) != nil {
		c.mend(ctx)
	}

	if err := c.await(ctx, patience, what, healthy); err != nil {
		return err
	}

	return c.AwaitLeader(ctx, nil)
}

// AwaitElected waits until another server than that one leads, whether it acknowledges
// commits already or not.
func (c *Cluster) AwaitElected(ctx context.Context, other *Node) error {
	return c.await(ctx, patience, "another leader", func(ctx context.Context) bool {
		leader := c.Leader(ctx)

		return leader != nil && leader != other
	})
}

// AwaitLeader waits until another server than that one leads, and the way that all take
// leads to it.
func (c *Cluster) AwaitLeader(ctx context.Context, other *Node) error {
	return c.await(ctx, patience, "a leader that acknowledges commits", func(ctx context.Context) bool {
		leader := c.Leader(ctx)

		return leader != nil && leader != other && c.commits(ctx, leader)
	})
}

// commits reports whether that server acknowledges a commit that comes by the way that
// all take.
func (c *Cluster) commits(ctx context.Context, leader *Node) bool {
	db, err := sql.Open("pgx", "postgres://postgres:postgres@"+c.Address()+"/postgres?sslmode=disable")
	if err != nil {
		return false
	}
	defer db.Close()

	conn, err := db.Conn(ctx)
	if err != nil {
		return false
	}
	defer conn.Close()

	var port int
	if conn.QueryRowContext(ctx, `SELECT inet_server_port()`).Scan(&port) != nil || port != leader.port {
		return false
	}

	_, err = conn.ExecContext(ctx, `SET synchronous_commit = on`)
	if err == nil {
		_, err = conn.ExecContext(ctx, `SELECT pg_logical_emit_message(true, 'verify', '')`)
	}

	return err == nil
}

// await asks until it is so.
func (c *Cluster) await(ctx context.Context, patience time.Duration, what string, so func(context.Context) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	for {
		asking, cancel := context.WithTimeout(ctx, 2*time.Second)
		found := so(asking)

		cancel()

		if found {
			return nil
		}

		if ctx.Err() != nil {
			return fmt.Errorf("patroni: not within %s: %s; the ends of the logs:\n%s", patience, what, c.logs())
		}

		time.Sleep(50 * time.Millisecond)
	}
}

// logs are the last lines of each.
func (c *Cluster) logs() string {
	var text strings.Builder

	files, _ := filepath.Glob(filepath.Join(c.folder, "*.log")) // the pattern is right
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			continue
		}

		const most = 2000

		fmt.Fprintf(&text, "%s:\n%s\n", filepath.Base(file), content[max(0, len(content)-most):])
	}

	return text.String()
}

// Close ends everything and removes its files.
func (c *Cluster) Close() error {
	if c.keeper == nil {
		return os.RemoveAll(c.folder)
	}

	if err := errors.Join(c.alive.Close(), c.keeper.Wait()); err != nil {
		return fmt.Errorf("patroni: the keeper: %w", err)
	}

	return nil
}
