// Package route is a way to a server that can be made to lead to another one, as a name or a
// virtual address does for the clients of a cluster.
package route

import (
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// dialWithin bounds an attempt to connect to the target.
const dialWithin = time.Second

// Route is a TCP port that leads to a target.
type Route struct {
	listener net.Listener
	wait     sync.WaitGroup

	// mu guards what follows.
	mu     sync.Mutex
	target string
	// open are both ends of every connection.
	open   map[net.Conn]struct{}
	closed bool
}

// New makes a route on a free port of its own. The target "" is nowhere.
func New(target string) (*Route, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("route: %w", err)
	}

	r := &Route{listener: listener, target: target, open: make(map[net.Conn]struct{})}
	r.wait.Go(r.serve)

	return r, nil
}

// Address is where the route begins. It stays the same.
func (r *Route) Address() string { return r.listener.Addr().String() }

// Port is that of the address.
func (r *Route) Port() int { return r.listener.Addr().(*net.TCPAddr).Port }

// To ends every connection. New ones lead to the target.
func (r *Route) To(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()

	r.target = target
	r.end()
}

// end needs mu.
func (r *Route) end() {
	for conn := range r.open {
		_ = conn.Close()
	}

	clear(r.open)
}

// Close ends the route and every connection.
func (r *Route) Close() error {
	err := r.listener.Close()

	r.mu.Lock()
	r.closed = true
	r.end()
	r.mu.Unlock()

	r.wait.Wait()

	return err
}

func (r *Route) serve() {
	for {
		conn, err := r.listener.Accept()
		if err != nil {
			return
		}

		r.wait.Go(func() { r.connect(conn) })
	}
}

func (r *Route) connect(client net.Conn) {
	defer client.Close()

	r.mu.Lock()
	target := r.target
	r.mu.Unlock()

	if target == "" {
		return
	}

	server, err := net.DialTimeout("tcp", target, dialWithin)
	if err != nil {
		return
	}
	defer server.Close()

	if !r.opened(target, client, server) {
		return
	}

	defer r.gone(client, server)

	var wait sync.WaitGroup

	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		wait.Go(func() {
			_, _ = io.Copy(way[1], way[0])
			_ = client.Close()
			_ = server.Close()
		})
	}

	wait.Wait()
}

// opened is false if the route leads somewhere else by now.
func (r *Route) opened(target string, ends ...net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()

	if r.closed || r.target != target {
		return false
	}

	for _, conn := range ends {
		r.open[conn] = struct{}{}
	}

	return true
}

func (r *Route) gone(ends ...net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()

	for _, conn := range ends {
		delete(r.open, conn)
	}
}
