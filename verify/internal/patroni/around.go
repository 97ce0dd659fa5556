package patroni

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// As fast as Patroni can be made. With a retryTimeout of one second it never takes the
// leader's place, since it keeps a second of that for the last step.
const (
	// leaderTTL is how many seconds Patroni waits for a leader's sign of life.
	leaderTTL = 5
	// loopWait is how many seconds it rests, and retryTimeout for how many it tries.
	loopWait     = 1
	retryTimeout = 2
)

// haproxyConfig leads to the server that Patroni names as the primary. Connections to a former
// primary are ended.
const haproxyConfig = `global
    maxconn 1000
defaults
    mode tcp
    timeout connect 500ms
    timeout check 500ms
    timeout client 1h
    timeout server 1h
listen primary
    bind %s
    option httpchk OPTIONS /primary
    http-check expect status 200
    default-server inter 300ms fall 2 rise 1 on-marked-down shutdown-sessions
`

func (c *Cluster) startHaproxy() error {
	c.port = freePort()

	var text strings.Builder

	fmt.Fprintf(&text, haproxyConfig, c.Address())

	for _, n := range c.Nodes {
		fmt.Fprintf(&text, "    server %s %s check port %d\n", n.name, n.Address(), n.restPort)
	}

	config := filepath.Join(c.folder, "haproxy.cfg")
	if err := os.WriteFile(config, []byte(text.String()), 0o644); err != nil {
		return fmt.Errorf("patroni: %w", err)
	}

	_, _, err := c.run("haproxy", c.programs["haproxy"], "-db", "-f", config)

	return err
}

func (c *Cluster) startEtcd(port int) error {
	clients, peers := "http://"+address(port), "http://"+address(freePort())

	_, _, err := c.run("etcd", c.programs["etcd"],
		"--enable-v2", "--name", "one", "--data-dir", filepath.Join(c.folder, "etcd"),
		"--listen-client-urls", clients, "--advertise-client-urls", clients,
		"--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers, "--initial-cluster", "one="+peers)

	return err
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// freePort is a port below those that systems use for outgoing connections. So no other program
// takes it while its server is down.
func freePort() int {
	const first, last = 10000, 15000

	for {
		port := first + rand.IntN(last-first)

		if listener, err := net.Listen("tcp", address(port)); err == nil {
			_ = listener.Close()

			return port
		}
	}
}
