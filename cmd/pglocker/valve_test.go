//go:build unix

package main

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// valve stands between the command and the server, and keeps back what a test wants kept back.
type valve struct {
	listener net.Listener
	server   string
	done     sync.WaitGroup

	// mu guards the rest.
	mu sync.Mutex
	// text closes the valve when a request has it.
	text []byte
	how  closing
	// seen is closed when it was closed that way, opened when it is open for good.
	seen, opened chan struct{}
	conns        []net.Conn
	ended        bool
	// replied is how many bytes the server has sent.
	replied atomic.Int64
}

// closing is what a valve keeps back.
type closing int

const (
	// noReply: the server's replies on the connection of the request.
	noReply closing = iota
	// noReplies: those on all connections.
	noReplies
	// noRequest: the request itself, and what follows on its connection.
	noRequest
)

// throughValve returns a bed whose command reaches the server through a valve, and what it closes by: a request
// with the text.
func throughValve(t *testing.T, how closing, text string) (*bed, *valve) {
	t.Helper()

	b := newBed(t)
	v := b.behindValve(how, text)

	return b, v
}

func (b *bed) behindValve(how closing, text string) *valve {
	b.t.Helper()

	u, err := url.Parse(b.url)
	must(b.t, err)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(b.t, err)

	v := &valve{
		listener: listener, server: u.Host, how: how, text: []byte(text),
		seen: make(chan struct{}), opened: make(chan struct{}),
	}
	u.Host = listener.Addr().String()
	b.env = []string{"PGLOCKER_DSN=" + u.String()}

	v.done.Go(v.accept)
	b.t.Cleanup(v.end)

	return v
}

func (v *valve) end() {
	_ = v.listener.Close()

	v.mu.Lock()
	v.ended = true

	for _, conn := range v.conns {
		_ = conn.Close()
	}
	v.mu.Unlock()

	v.open()
	v.done.Wait()
}

// open lets through what was kept back, and all that follows.
func (v *valve) open() {
	v.mu.Lock()
	defer v.mu.Unlock()

	select {
	case <-v.opened:
	default:
		close(v.opened)
	}
}

// closes waits until a request of the process has closed the valve.
func (v *valve) closes(p *process) {
	p.t.Helper()

	select {
	case <-v.seen:
	case <-p.exited:
		p.t.Fatalf("it has ended before\n%s", p.stderr)
	case <-time.After(patience):
		p.t.Fatalf("it hasn't asked\n%s", p.stderr)
	}
}

func (v *valve) accept() {
	for {
		client, err := v.listener.Accept()
		if err != nil {
			return
		}

		v.done.Go(func() {
			defer client.Close() //nolint:errcheck // it has ended

			server, err := net.Dial("tcp", v.server)
			if err != nil || !v.keep(client, server) {
				return
			}
			defer server.Close() //nolint:errcheck // as above

			closed := make(chan struct{})

			v.done.Go(func() {
				copyThrough(server, client, func(request []byte) { v.request(request, closed) })
				_ = server.Close()
			})
			copyThrough(client, server, func(reply []byte) {
				v.replied.Add(int64(len(reply)))
				v.reply(closed)
			})
		})
	}
}

func (v *valve) keep(conns ...net.Conn) bool {
	v.mu.Lock()
	defer v.mu.Unlock()

	v.conns = append(v.conns, conns...)

	return !v.ended
}

// request closes the valve if the request has the text.
func (v *valve) request(request []byte, closed chan struct{}) {
	v.mu.Lock()

	select {
	case <-v.seen:
		v.mu.Unlock()
	default:
		found := bytes.Contains(request, v.text)
		if found {
			close(closed)
			close(v.seen)
		}
		v.mu.Unlock()

		if found && v.how == noRequest {
			<-v.opened
		}
	}
}

// reply waits while the valve is closed for it.
func (v *valve) reply(closed chan struct{}) {
	if v.how == noReplies {
		closed = v.seen
	}

	select {
	case <-closed:
		<-v.opened
	default:
	}
}

// copyThrough passes on what comes, after before was called with it.
func copyThrough(to, from net.Conn, before func([]byte)) {
	buffer := make([]byte, 64<<10)

	for {
		n, err := from.Read(buffer)
		if n > 0 {
			before(buffer[:n])

			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}

		if err != nil {
			return
		}
	}
}
