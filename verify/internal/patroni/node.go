package patroni

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Node is a PostgreSQL server and its Patroni.
type Node struct {
	name           string
	cluster        *Cluster
	port, restPort int

	// patroni is nil before the first start, and stopped is closed while none runs.
	patroni *exec.Cmd
	stopped chan struct{}
}

// Address is where the PostgreSQL server listens, leader or not.
func (n *Node) Address() string { return address(n.port) }

// Start starts Patroni, which starts the server.
func (n *Node) Start() (err error) {
	n.patroni, n.stopped, err = n.cluster.run(n.name, n.cluster.programs["patroni"], n.config())

	return err
}

// Kill ends Patroni and the server by SIGKILL.
func (n *Node) Kill() error {
	_ = n.patroni.Process.Kill()
	<-n.stopped

	return n.KillServer()
}

// KillServer ends the server alone by SIGKILL, all of it at once.
func (n *Node) KillServer() error {
	main, err := mainPID(n.dataDir())
	if err != nil {
		return nil // it isn't up
	}

	group, err := processGroup(main)
	if err != nil {
		return fmt.Errorf("patroni: %w", err)
	}

	// Halted first, none sees another one die.
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGKILL} {
		for _, pid := range group {
			_ = syscall.Kill(pid, sig)
		}
	}

	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		if left, err := processGroup(main); err == nil && len(left) == 0 {
			return nil
		}

		if time.Now().After(deadline) {
			return fmt.Errorf("patroni: the server of %s doesn't die", n.name)
		}
	}
}

// Freeze halts Patroni. The server goes on.
func (n *Node) Freeze() { _ = n.patroni.Process.Signal(syscall.SIGSTOP) }

// Thaw lets Patroni go on.
func (n *Node) Thaw() { _ = n.patroni.Process.Signal(syscall.SIGCONT) }

// Leader is the server that leads, nil if there is none or it isn't known.
func (c *Cluster) Leader(ctx context.Context) *Node {
	for _, n := range c.Nodes {
		if _, err := n.ask(ctx, http.MethodGet, "/primary", nil); err == nil {
			return n
		}
	}

	return nil
}

// roles counts the servers that are up, by their roles.
func (c *Cluster) roles(ctx context.Context) map[string]int {
	var view struct {
		Members []struct{ Role, State string }
	}

	roles := make(map[string]int)

	for _, n := range c.Nodes {
		body, err := n.ask(ctx, http.MethodGet, "/cluster", nil)
		if err != nil || json.Unmarshal(body, &view) != nil {
			continue
		}

		for _, m := range view.Members {
			if m.State == "running" || m.State == "streaming" {
				roles[m.Role]++
			}
		}

		return roles
	}

	return roles
}

// mend makes servers anew that don't follow the leader.
func (c *Cluster) mend(ctx context.Context) {
	leader := c.Leader(ctx)

	for _, n := range c.Nodes {
		if _, err := n.ask(ctx, http.MethodGet, "/replica", nil); err == nil || n == leader {
			continue
		}

		// If that is refused, the wait for the server reports it.
		_, _ = n.ask(ctx, http.MethodPost, "/reinitialize", map[string]any{"force": true})
	}
}

// SwitchOver makes Patroni choose another leader, in an orderly way.
func (c *Cluster) SwitchOver(ctx context.Context, leader *Node) error {
	_, err := leader.ask(ctx, http.MethodPost, "/switchover", map[string]any{"leader": leader.name})

	return err
}

// Pause makes Patroni leave everything as it is, or care for it again.
func (c *Cluster) Pause(ctx context.Context, pause bool) error {
	var err error

	for _, n := range c.Nodes {
		if _, err = n.ask(ctx, http.MethodPatch, "/config", map[string]any{"pause": pause}); err == nil {
			return nil
		}
	}

	return err
}

// client doesn't wait for a Patroni that is halted, except where it was asked for something.
var client = http.Client{Timeout: 20 * time.Second}

// ask asks Patroni. Any answer but success is an error.
func (n *Node) ask(ctx context.Context, method, path string, what any) ([]byte, error) {
	if what == nil {
		limited, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()

		ctx = limited
	}

	body, err := json.Marshal(what)
	if err != nil {
		return nil, fmt.Errorf("patroni: %w", err)
	}

	req, err := http.NewRequestWithContext(ctx, method, "http://"+address(n.restPort)+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("patroni: %w", err)
	}

	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("patroni: %w", err)
	}
	defer resp.Body.Close()

	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("patroni: %w", err)
	}

	if resp.StatusCode/100 != 2 {
		return nil, fmt.Errorf("patroni: %s %s: %s: %s", method, path, resp.Status, answer)
	}

	return answer, nil
}

func (n *Node) config() string  { return filepath.Join(n.cluster.folder, n.name+".json") }
func (n *Node) dataDir() string { return filepath.Join(n.cluster.folder, n.name, "data") }

// configure writes Patroni's configuration. JSON is YAML.
func (n *Node) configure(etcdPort int) error {
	const password = "postgres"

	access := []string{
		"host all all 127.0.0.1/32 scram-sha-256",
		"host replication all 127.0.0.1/32 scram-sha-256",
	}
	settings := map[string]any{
		"unix_socket_directories": "", "max_connections": 300, "fsync": "off", "wal_keep_size": "256MB",
		"dynamic_shared_memory_type": "mmap", "timezone": "UTC", "log_timezone": "UTC",
		"log_min_error_statement": "panic",
	}

	type m = map[string]any

	config, err := json.MarshalIndent(m{
		"scope": n.cluster.scope, "name": n.name,
		"restapi": m{"listen": address(n.restPort), "connect_address": address(n.restPort)},
		// By version 3 of etcd's interface, a leader's Patroni that was halted takes the lock
		// back from the next one without a look (3.0.2, _update_leader), and both lead.
		"etcd": m{"host": address(etcdPort)},
		"bootstrap": m{
			"dcs": m{
				"ttl": leaderTTL, "loop_wait": loopWait, "retry_timeout": retryTimeout,
				"synchronous_mode": true, "synchronous_mode_strict": true,
				"postgresql": m{"use_pg_rewind": true, "parameters": settings, "pg_hba": access},
			},
			"initdb": []any{m{"encoding": "UTF8"}, m{"locale": "C"}, "data-checksums", "no-sync"},
		},
		"postgresql": m{
			"listen": n.Address(), "connect_address": n.Address(),
			"data_dir": n.dataDir(), "bin_dir": n.cluster.binDir,
			"pgpass": filepath.Join(n.cluster.folder, n.name+".pgpass"),
			"authentication": m{
				"superuser":   m{"username": "postgres", "password": password},
				"replication": m{"username": "replicator", "password": password},
				"rewind":      m{"username": "postgres", "password": password},
			},
			"basebackup": []any{m{"checkpoint": "fast"}, "no-sync"},
		},
		"watchdog": m{"mode": "off"},
	}, "", " ")
	if err == nil {
		err = os.WriteFile(n.config(), config, 0o644)
	}

	if err != nil {
		return fmt.Errorf("patroni: %w", err)
	}

	return nil
}
