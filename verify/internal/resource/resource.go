// Package resource is a store outside of the database that fencing tokens protect. It remembers the
// largest token that it has seen for a lock, and refuses smaller ones.
package resource

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/ismurov/pglocker/verify/internal/history"
)

type request struct {
	Lock  string
	Token int64
	// Value is what to write; nil reads.
	Value *int64
}

type reply struct {
	Accepted bool
	Value    int64
}

// store is what the resource holds. Without fencing it takes everything, as most
// resources do.
type store struct {
	mu     sync.Mutex
	tokens map[string]int64
	values map[string]int64
	fenced bool
	rec    *history.Recorder
	// conns are the clients', nil once the store takes no more. mu guards them, too.
	conns map[net.Conn]struct{}
}

// handle checks and writes in one step. A read registers its token, too: otherwise a later write of
// an older holder would change what was read.
func (s *store) handle(req request) reply {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.fenced && req.Token < s.tokens[req.Lock] {
		return reply{}
	}

	s.tokens[req.Lock] = max(s.tokens[req.Lock], req.Token)

	if req.Value != nil {
		s.values[req.Lock] = *req.Value
		s.rec.Note(history.Event{Kind: history.Write, Lock: req.Lock, Token: req.Token, Value: *req.Value})
	}

	return reply{true, s.values[req.Lock]}
}

// accept serves all connections. It returns when the listener is closed and no connection is served
// any more.
func (s *store) accept(listener net.Listener) {
	var serving sync.WaitGroup
	defer serving.Wait()

	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}

		serving.Go(func() { s.serve(conn) })
	}
}

func (s *store) serve(conn net.Conn) {
	defer conn.Close()

	if !s.enter(conn) {
		return
	}
	defer s.leave(conn)

	in, out := json.NewDecoder(conn), json.NewEncoder(conn)

	for {
		var req request
		if in.Decode(&req) != nil || out.Encode(s.handle(req)) != nil {
			return // the client is gone
		}
	}
}

func (s *store) enter(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.conns == nil {
		return false
	}

	s.conns[conn] = struct{}{}

	return true
}

func (s *store) leave(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()

	delete(s.conns, conn)
}

// hangUp closes all connections, and accepts no more.
func (s *store) hangUp() {
	s.mu.Lock()
	defer s.mu.Unlock()

	for conn := range s.conns {
		_ = conn.Close() // its server finds out
	}

	s.conns = nil
}

// Main is the process of the resource. It says on out where it listens, and ends with
// its input.
func Main(path string, fenced bool, in io.Reader, out io.Writer) error {
	rec, err := history.NewRecorder(path, "resource")
	if err != nil {
		return err
	}

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("resource: %w", err)
	}

	if _, err := fmt.Fprintln(out, listener.Addr()); err != nil {
		return err
	}

	s := &store{
		tokens: make(map[string]int64), values: make(map[string]int64), fenced: fenced, rec: rec,
		conns: make(map[net.Conn]struct{}),
	}

	var accepting sync.WaitGroup

	accepting.Go(func() { s.accept(listener) })

	_, err = io.Copy(io.Discard, in)
	err = errors.Join(err, listener.Close())

	// No goroutine may write anything down after the end.
	s.hangUp()
	accepting.Wait()

	return errors.Join(err, rec.Close())
}

// Conn is a client's connection to the resource.
type Conn struct {
	net.Conn
	in  *json.Decoder
	out *json.Encoder
}

// Dial connects. Requests have no limit: one that a pause delays must still arrive, to be
// refused.
func Dial(address string, limit time.Duration) (*Conn, error) {
	conn, err := net.DialTimeout("tcp", address, limit)
	if err != nil {
		return nil, fmt.Errorf("resource: %w", err)
	}

	return &Conn{conn, json.NewDecoder(conn), json.NewEncoder(conn)}, nil
}

func (c *Conn) ask(req request) (r reply) {
	if c.out.Encode(req) != nil || c.in.Decode(&r) != nil {
		return reply{}
	}

	return r
}

// Read returns the value. ok is false if the token is too old, or no answer came.
func (c *Conn) Read(lock string, token int64) (value int64, ok bool) {
	r := c.ask(request{Lock: lock, Token: token})

	return r.Value, r.Accepted
}

// Write writes the value, unless the token is too old.
func (c *Conn) Write(lock string, token, value int64) {
	c.ask(request{Lock: lock, Token: token, Value: &value})
}
