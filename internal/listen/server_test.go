package listen_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/listen"
)

const (
	channel = "releases"
	probe   = "probe of this one"
	// lateness is by how much a late answer outlives its context.
	lateness = 10 * time.Millisecond
)

// server stands for a database and what lies before it.
type server struct {
	// mu guards what follows.
	mu sync.Mutex
	// refuses is the error of every attempt to connect, nil if they succeed; hangs
	// lets them hang until their context ends.
	refuses error
	hangs   bool
	// deaf: notifications are accepted and don't arrive.
	deaf bool
	// late: the first Wait whose context ends returns the probe, a moment later.
	late bool
	// opened are the moments of all attempts to connect.
	opened []time.Time
	conns  []*conn
	woken  []string // payloads
	all    int      // calls of WakeAll
	probes int      // probes sent
	states []listen.State
}

type conn struct {
	server  *server
	listens map[string]bool
	arrived chan [2]string // channel, payload
	broken  chan error
	closed  bool
}

// newListener returns a listener to the server.
func (s *server) newListener() *listen.Listener {
	return listen.New(listen.Config{
		Open:    s.open,
		Notify:  func(_ context.Context, channel string) error { return s.notify(channel, "") },
		Channel: channel,
		Probe:   probe,
		Wake: func(payload string) {
			s.mu.Lock()
			defer s.mu.Unlock()

			s.woken = append(s.woken, payload)
		},
		WakeAll: func() {
			s.mu.Lock()
			defer s.mu.Unlock()

			s.all++
		},
		OnState: func(from, to listen.State) {
			s.mu.Lock()
			defer s.mu.Unlock()

			s.states = append(s.states, from, to)
		},
		Logger: slog.New(slog.DiscardHandler),
	})
}

func (s *server) open(ctx context.Context) (listen.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.opened = append(s.opened, time.Now())

	if s.hangs {
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()

		return nil, ctx.Err()
	}

	if s.refuses != nil {
		return nil, s.refuses
	}

	c := &conn{
		server:  s,
		listens: make(map[string]bool),
		arrived: make(chan [2]string, 10),
		broken:  make(chan error, 1),
	}
	s.conns = append(s.conns, c)

	return c, nil
}

// notify sends to all who listen.
func (s *server) notify(channel, payload string) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	if channel == probe {
		s.probes++
	}

	for _, c := range s.conns {
		if c.listens[channel] && !c.closed && !s.deaf {
			c.arrived <- [2]string{channel, payload}
		}
	}

	return nil
}

func (c *conn) Listen(_ context.Context, channel string) error {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()

	c.listens[channel] = true

	return nil
}

func (c *conn) Wait(ctx context.Context) (channel, payload string, err error) {
	select {
	case n := <-c.arrived:
		return n[0], n[1], nil
	case err := <-c.broken:
		return "", "", err
	case <-ctx.Done():
		c.server.mu.Lock()
		late := c.server.late
		c.server.late = false
		c.server.mu.Unlock()

		if late {
			time.Sleep(lateness)

			return probe, "", nil
		}

		return "", "", ctx.Err()
	}
}

func (c *conn) Close() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()

	c.closed = true
}

// breakConn breaks the newest connection.
func (s *server) breakConn() { s.last().broken <- errors.New("connection reset by peer") }

// last is the newest connection.
func (s *server) last() *conn {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.conns[len(s.conns)-1]
}

// probed is how many probes were sent.
func (s *server) probed() int {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.probes
}

// attempts is how often a connection was asked for.
func (s *server) attempts() int {
	s.mu.Lock()
	defer s.mu.Unlock()

	return len(s.opened)
}

// open connections.
func (s *server) connections() (open int) {
	s.mu.Lock()
	defer s.mu.Unlock()

	for _, c := range s.conns {
		if !c.closed {
			open++
		}
	}

	return open
}

// allWoken is how often everybody was told to look.
func (s *server) allWoken() int {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.all
}

func (s *server) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()

	change()
}

// expect waits until nothing moves any more, and fails the test unless that leaves
// the listener proven or not, with that many connections open and asked for.
func (s *server) expect(t *testing.T, what string, l *listen.Listener, proven bool, connections, attempts int) {
	t.Helper()
	synctest.Wait()

	if got := l.Proven(); got != proven {
		t.Errorf("%s: proven is %t, want %t", what, got, proven)
	}

	if got := s.connections(); got != connections {
		t.Errorf("%s: %d connections are open, want %d", what, got, connections)
	}

	if got := s.attempts(); got != attempts {
		t.Errorf("%s: a connection was asked for %d times, want %d", what, got, attempts)
	}
}
