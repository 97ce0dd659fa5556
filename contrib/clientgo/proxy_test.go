package pglockerclientgo_test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// proxy stands between a candidate and its server. While it holds answers back, requests go through.
type proxy struct {
	// answers is locked for reading while an answer is passed on, and for writing while they are held back.
	answers sync.RWMutex
	holding bool
}

// newProxy returns a proxy, and the database's URL through it.
func newProxy(t *testing.T, databaseURL string) (*proxy, string) {
	t.Helper()

	u, err := url.Parse(databaseURL)
	must(t, err)

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)

	p := &proxy{}
	server := u.Host
	u.Host = listener.Addr().String()

	var done sync.WaitGroup

	done.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}

			done.Go(func() { p.serve(client, server) })
		}
	})

	t.Cleanup(func() {
		p.letGo()

		_ = listener.Close()
		done.Wait()
	})

	return p, u.String()
}

// serve passes on what comes until either side has closed its connection.
func (p *proxy) serve(client net.Conn, address string) {
	defer client.Close()

	server, err := net.Dial("tcp", address)
	if err != nil {
		return
	}

	var answers sync.WaitGroup
	defer answers.Wait()
	defer server.Close()

	answers.Go(func() {
		_, _ = io.Copy(answersTo{p, client}, server)
		_ = client.Close()
	})

	_, _ = io.Copy(server, client)
}

type answersTo struct {
	*proxy
	client net.Conn
}

func (a answersTo) Write(answer []byte) (int, error) {
	a.answers.RLock()
	defer a.answers.RUnlock()

	return a.client.Write(answer)
}

func (p *proxy) holdBack() {
	p.answers.Lock()
	p.holding = true
}

func (p *proxy) letGo() {
	if p.holding {
		p.holding = false
		p.answers.Unlock()
	}
}
