// Package middle is a bad pooler between one client and its server. It reads PostgreSQL's protocol
// as far as it needs to. So it can do what no network does: replace a reply once the server has
// committed, cut a client off and deliver its request later, and open read-only sessions.
package middle

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Forgery is an error in the place of a reply. The connection ends after it.
type Forgery struct {
	Severity, Code string
	// Rows: the rows of the reply arrive before the error.
	Rows bool
}

// Middle listens on a port of its own, and leads to a server.
type Middle struct {
	listener net.Listener
	target   string
	wait     sync.WaitGroup
	// made counts the troubles that took effect.
	made atomic.Int64

	// mu guards what follows.
	mu sync.Mutex
	// forge, late and reader make trouble. Each is nil while it makes none.
	forge  func() *Forgery
	late   func() time.Duration
	reader func() bool
	// open are both ends of every connection, nil once the Middle is closed.
	open map[net.Conn]struct{}
}

// dialWithin bounds an attempt to connect to the server.
const dialWithin = 5 * time.Second

// New makes a Middle in front of the target.
func New(target string) (*Middle, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("middle: %w", err)
	}

	m := &Middle{listener: listener, target: target, open: make(map[net.Conn]struct{})}
	m.wait.Go(m.serve)

	return m, nil
}

// Address is where it listens.
func (m *Middle) Address() string { return m.listener.Addr().String() }

// Forge calls the function when the reply to a committed change is there. If the function returns a
// Forgery, that takes the reply's place. One goroutine calls it at a time; nil ends it.
func (m *Middle) Forge(how func() *Forgery) {
	m.mu.Lock()
	defer m.mu.Unlock()

	m.forge = how
}

// Delay calls the function before a request that changes locks is sent. If it returns a duration,
// the client is cut off, and the request is held back for so long. One goroutine calls it at a
// time; nil ends it.
func (m *Middle) Delay(how func() time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()

	m.late = how
}

// ReadOnly calls the function for each new connection, whose session is then read-only as long as
// it lasts if the function says so. One goroutine calls it at a time; nil ends it.
func (m *Middle) ReadOnly(which func() bool) {
	m.mu.Lock()
	defer m.mu.Unlock()

	m.reader = which
}

// Made is how often trouble took effect.
func (m *Middle) Made() int64 { return m.made.Load() }

// Close ends the Middle and every connection.
func (m *Middle) Close() error {
	err := m.listener.Close()

	m.mu.Lock()

	for conn := range m.open {
		_ = conn.Close()
	}

	m.open = nil
	m.mu.Unlock()

	m.wait.Wait()

	return err
}

func (m *Middle) askForge() *Forgery {
	m.mu.Lock()
	defer m.mu.Unlock()

	if m.forge == nil {
		return nil
	}

	return m.forge()
}

func (m *Middle) askDelay() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()

	if m.late == nil {
		return 0
	}

	return m.late()
}

func (m *Middle) askReadOnly() bool {
	m.mu.Lock()
	defer m.mu.Unlock()

	return m.reader != nil && m.reader()
}

func (m *Middle) serve() {
	for {
		conn, err := m.listener.Accept()
		if err != nil {
			return
		}

		m.wait.Go(func() { m.connect(conn) })
	}
}

// enter is false if the Middle was closed.
func (m *Middle) enter(ends ...net.Conn) bool {
	m.mu.Lock()
	defer m.mu.Unlock()

	if m.open == nil {
		return false
	}

	for _, conn := range ends {
		m.open[conn] = struct{}{}
	}

	return true
}

func (m *Middle) leave(ends ...net.Conn) {
	m.mu.Lock()
	defer m.mu.Unlock()

	for _, conn := range ends {
		delete(m.open, conn)
	}
}

func (m *Middle) connect(client net.Conn) {
	defer client.Close()

	server, err := net.DialTimeout("tcp", m.target, dialWithin)
	if err != nil {
		return
	}
	defer server.Close()

	if !m.enter(client, server) {
		return
	}
	defer m.leave(client, server)

	l := &link{middle: m, client: client, server: server}

	var wait sync.WaitGroup

	wait.Go(func() {
		_ = l.requests() // it ends with one of the two
		_ = server.Close()
	})

	_ = l.replies() // the same
	_ = client.Close()
	_ = server.Close()

	wait.Wait()
}

// link is one connection of a client, and the one to the server that it leads to.
type link struct {
	middle         *Middle
	client, server net.Conn

	// cut: the client's end was closed, and the server's answers have no reader.
	cut atomic.Bool
	// inTransaction: the server's last word was that a transaction is open.
	inTransaction atomic.Bool
}

var errCut = errors.New("middle: cut off")

// mostBytes bounds a message. Those of the clients are far smaller.
const mostBytes = 64 << 20

// readMessage reads one with its head. The first one of a client has no kind.
func readMessage(from *bufio.Reader, head int) ([]byte, error) {
	start, err := from.Peek(head)
	if err != nil {
		return nil, err
	}

	length := head - 4 + int(binary.BigEndian.Uint32(start[head-4:]))
	if length < head || length > mostBytes {
		return nil, fmt.Errorf("middle: a message of %d bytes", length)
	}

	message := make([]byte, length)
	_, err = io.ReadFull(from, message)

	return message, err
}

// The lengths of what stands before the rest of a message: its length, and a kind before that.
const (
	headOfFirst = 4
	head        = 5
)

// replies passes on what the server says. A reply waits until it is complete: then the server has
// committed what it answers.
func (l *link) replies() error {
	var (
		from  = bufio.NewReader(l.server)
		reply reply
		begun bool // the session is, and no longer has to be let in
	)

	for {
		message, err := readMessage(from, head)
		if err != nil {
			_ = l.tell(reply.all) // how far it got

			return err
		}

		switch kind := message[0]; {
		case kind == 'A' || kind == 'N' || kind == 'S': // they are part of no reply
			err = l.tell(message)
		case kind == 'Z':
			l.inTransaction.Store(message[head] != 'I')

			if f := l.forged(&reply, message[head]); f != nil {
				return l.tell(reply.replaced(*f))
			}

			begun = true
			err = l.tell(append(reply.all, message...))
			reply.clear()
		case !begun || kind == 'G' || kind == 'H' || kind == 'W': // the client has to answer
			err = l.tell(append(reply.all, message...))
			reply.clear()
		default:
			reply.add(message)
		}

		if err != nil {
			return err
		}
	}
}

// tell does nothing for a client that was cut off.
func (l *link) tell(messages []byte) error {
	if l.cut.Load() {
		return nil
	}

	_, err := l.client.Write(messages)

	return err
}

func (l *link) forged(r *reply, status byte) *Forgery {
	if status != 'I' || !r.changed || l.cut.Load() {
		return nil
	}

	f := l.middle.askForge()
	if f != nil {
		l.middle.made.Add(1)
	}

	return f
}

// requests passes on what the client says, a request at a time.
func (l *link) requests() error {
	from := bufio.NewReader(l.client)

	first, err := readMessage(from, headOfFirst)
	if err != nil {
		return err
	}

	if asksForSession(first) && l.middle.askReadOnly() {
		first = readOnly(first)
		l.middle.made.Add(1)
	}

	if _, err := l.server.Write(first); err != nil {
		return err
	}

	r := request{changing: make(map[string]bool)}

	for {
		message, err := readMessage(from, head)
		if err != nil {
			return err
		}

		r.add(message)

		if !r.complete() {
			continue
		}

		if late := l.delay(&r); late > 0 {
			return l.deliverLate(r.all, late)
		}

		if _, err := l.server.Write(r.all); err != nil {
			return err
		}

		r.clear()
	}
}

func (l *link) delay(r *request) time.Duration {
	if !r.changes || l.inTransaction.Load() {
		return 0
	}

	return l.middle.askDelay()
}

// deliverLate cuts the client off, and then delivers its request. It waits for the server's answer,
// so that the request is carried out.
func (l *link) deliverLate(request []byte, after time.Duration) error {
	l.middle.made.Add(1)
	l.cut.Store(true)
	_ = l.client.Close()

	time.Sleep(after)

	if _, err := l.server.Write(request); err != nil {
		return err
	}

	time.Sleep(answerWithin)

	return errCut
}

// answerWithin is how long a session lasts that a late request was delivered to.
const answerWithin = time.Second
