package contract

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Forger is a proxy between a locker and its server. It replaces replies to committed
// statements by errors, as a pooler does that loses its connection to the server.
type Forger struct {
	listener net.Listener
	server   string
	done     sync.WaitGroup

	mu     sync.Mutex
	conns  []net.Conn
	closed bool
	forge  func(tag string) *Forged
	forged int
}

// Forged is an error in place of a reply.
type Forged struct {
	// Severity is the field that isn't translated. Translated is the other; "" means the
	// same.
	Severity, Translated string
	Code, Message        string
	// Stays: the connection stays open.
	Stays bool
}

// NewForger returns a forger and the URL of the database through it.
func NewForger(t *testing.T, databaseURL string) (*Forger, string) {
	t.Helper()

	u, err := url.Parse(databaseURL)
	if err != nil {
		t.Fatal(err)
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	f := &Forger{listener: listener, server: u.Host}
	u.Host = listener.Addr().String()

	f.done.Go(f.accept)
	t.Cleanup(func() {
		_ = listener.Close() // ends accept

		f.mu.Lock()
		f.closed = true

		for _, c := range f.conns {
			_ = c.Close()
		}
		f.mu.Unlock()

		f.done.Wait()
	})

	return f, u.String()
}

// OnCommit calls forge with the command tag of each statement that changed rows.
func (f *Forger) OnCommit(forge func(tag string) *Forged) {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.forge = forge
}

func (f *Forger) Count() int {
	f.mu.Lock()
	defer f.mu.Unlock()

	return f.forged
}

func (f *Forger) accept() {
	for {
		client, err := f.listener.Accept()
		if err != nil {
			return
		}

		f.done.Go(func() { f.serve(client) })
	}
}

func (f *Forger) serve(client net.Conn) {
	defer func() { _ = client.Close() }()

	server, err := net.Dial("tcp", f.server)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()

	f.mu.Lock()
	f.conns = append(f.conns, client, server)
	closed := f.closed
	f.mu.Unlock()

	if closed {
		return
	}

	f.done.Go(func() {
		_, _ = io.Copy(server, client) // until one of them is closed
		_ = server.Close()
	})

	f.replies(client, server)
}

// replies forwards the server's replies, one at a time.
func (f *Forger) replies(client, server net.Conn) {
	var (
		reply []byte
		tag   string
	)

	for {
		head := make([]byte, 5)
		if _, err := io.ReadFull(server, head); err != nil {
			return
		}

		body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
		if _, err := io.ReadFull(server, body); err != nil {
			return
		}

		reply = append(append(reply, head...), body...)

		switch head[0] {
		case 'C':
			tag = string(bytes.TrimRight(body, "\x00"))
		case 'Z', 'R':
			forged := f.replace(tag)
			if forged != nil {
				reply = forged.bytes()
			}

			if _, err := client.Write(reply); err != nil || forged != nil && !forged.Stays {
				return
			}

			reply, tag = nil, ""
		}
	}
}

func (f *Forger) replace(tag string) *Forged {
	f.mu.Lock()
	defer f.mu.Unlock()

	changed := bytes.HasPrefix([]byte(tag), []byte("UPDATE ")) || bytes.HasPrefix([]byte(tag), []byte("INSERT "))
	if f.forge == nil || !changed || bytes.HasSuffix([]byte(tag), []byte(" 0")) {
		return nil
	}

	forged := f.forge(tag)
	if forged != nil {
		f.forged++
	}

	return forged
}

func (e *Forged) bytes() []byte {
	translated := e.Translated
	if translated == "" {
		translated = e.Severity
	}

	var body []byte
	for _, field := range []string{"S" + translated, "V" + e.Severity, "C" + e.Code, "M" + e.Message} {
		body = append(append(body, field...), 0)
	}

	body = append(body, 0)
	message := append(binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(body)+4)), body...)

	if e.Stays {
		message = append(message, 'Z', 0, 0, 0, 5, 'I')
	}

	return message
}
