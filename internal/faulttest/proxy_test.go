package faulttest

import (
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
)

// proxy stands between a locker and its server, and loses what a test wants lost.
type proxy struct {
	listener net.Listener
	server   string
	done     sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
	// lose is asked for every answer of the server, nil if none is to be lost.
	lose func() fate
	// refusing: new connections are closed at once.
	refusing bool
	closed   bool
}

// fate is what happens to an answer.
type fate int

const (
	pass fate = iota
	// cut drops the answer and both connections.
	cut
	// mute drops the answer; the connections stay.
	mute
)

// newProxy returns a proxy and the database's URL through it.
func newProxy(t *testing.T, databaseURL string) (*proxy, string) {
	t.Helper()

	u, err := url.Parse(databaseURL)
	contract.Must(t, err)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	contract.Must(t, err)

	p := &proxy{listener: listener, server: u.Host, conns: make(map[net.Conn]struct{})}
	u.Host = listener.Addr().String()

	p.done.Go(p.accept)
	t.Cleanup(func() {
		p.mu.Lock()
		p.closed = true
		p.mu.Unlock()

		_ = listener.Close() // ends accept
		p.cutAll()
		p.done.Wait()
	})

	return p, u.String()
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}

		p.done.Go(func() { p.serve(client) })
	}
}

func (p *proxy) serve(client net.Conn) {
	defer func() { _ = client.Close() }()

	if p.refuses() {
		return
	}

	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()

	if !p.keep(client) || !p.keep(server) {
		return
	}

	p.done.Go(func() {
		// The client's end isn't passed on: a server that waits doesn't notice, as
		// with a client whose machine is gone.
		copyAll(server, client, func() fate { return pass })
	})

	copyAll(client, server, p.fate)
}

// copyAll passes on what comes until one side ends or is cut.
func copyAll(to, from net.Conn, fateOf func() fate) {
	buf := make([]byte, 64<<10)

	for {
		n, err := from.Read(buf)
		if n > 0 {
			switch fateOf() {
			case pass:
				if _, err := to.Write(buf[:n]); err != nil {
					return
				}
			case cut:
				return
			case mute:
			}
		}

		if err != nil {
			return
		}
	}
}

func (p *proxy) fate() fate {
	p.mu.Lock()
	lose := p.lose
	p.mu.Unlock()

	if lose == nil {
		return pass
	}

	return lose()
}

func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.conns[c] = struct{}{}

	return !p.closed
}

func (p *proxy) refuses() bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	return p.refusing
}

// refuse says whether new connections are closed at once.
func (p *proxy) refuse(refusing bool) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.refusing = refusing
}

// onAnswer has each answer of the server meet the fate that lose says; nil: none
// is lost any more.
func (p *proxy) onAnswer(lose func() fate) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.lose = lose
}

// cutAll drops every connection.
func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()

	for c := range p.conns {
		_ = c.Close()
	}

	clear(p.conns)
}
