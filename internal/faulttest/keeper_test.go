package faulttest

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
)

// keeper passes on what clients send, except for one request, which it keeps.
type keeper struct {
	listener net.Listener
	server   string
	done     sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	// keep is what the next request to be kept contains, nil if none is.
	keep []byte
	kept chan keptRequest
	// later counts the requests for the same lock that came after the one that was kept.
	name  []byte
	later int
}

type keptRequest struct {
	// hangUp breaks the client's connection, and deliver sends the request to the server.
	hangUp, deliver func()
}

func newKeeper(t *testing.T, databaseURL string) (*keeper, string) {
	t.Helper()

	u, err := url.Parse(databaseURL)
	contract.Must(t, err)

	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	contract.Must(t, err)

	k := &keeper{listener: listener, server: u.Host, kept: make(chan keptRequest, 1)}
	u.Host = listener.Addr().String()

	k.done.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}

			server, err := net.Dial("tcp", k.server)
			if err != nil {
				_ = client.Close()

				continue
			}

			k.mu.Lock()
			k.conns = append(k.conns, client, server)
			k.mu.Unlock()

			k.done.Go(func() { k.passOn(client, server) })
			k.done.Go(func() { copyAll(client, server, func() fate { return pass }) })
		}
	})

	t.Cleanup(func() {
		_ = listener.Close()

		k.mu.Lock()
		for _, conn := range k.conns {
			_ = conn.Close()
		}
		k.mu.Unlock()

		k.done.Wait()
	})

	return k, u.String()
}

// passOn passes on what a client sends, up to what is to be kept. The connection to the
// server stays.
func (k *keeper) passOn(client, server net.Conn) {
	buf := make([]byte, 64<<10)

	for {
		n, err := client.Read(buf)
		if err != nil {
			return
		}

		sent := buf[:n]

		k.mu.Lock()
		keep := k.keep != nil && bytes.Contains(sent, k.keep)

		switch {
		case keep:
			k.keep, k.name, k.later = nil, k.keep, 0
		case k.name != nil && bytes.Contains(sent, k.name):
			k.later++
		}
		k.mu.Unlock()

		if keep {
			k.kept <- keptRequest{
				hangUp:  func() { _ = client.Close() },
				deliver: func() { _, _ = server.Write(sent) },
			}

			return
		}

		if _, err := server.Write(sent); err != nil {
			return
		}
	}
}

// keepNext keeps the next request that names the lock.
func (k *keeper) keepNext(lockID string) {
	k.mu.Lock()
	defer k.mu.Unlock()

	k.keep = []byte(lockID)
}

// requestsSince counts the requests for the lock since one was kept.
func (k *keeper) requestsSince() int {
	k.mu.Lock()
	defer k.mu.Unlock()

	return k.later
}
