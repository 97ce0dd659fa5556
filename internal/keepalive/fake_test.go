package keepalive

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ismurov/pglocker/internal/store"
)

var errDown = errors.New("the server is down")

// statement is one Renew that reached the server.
type statement struct {
	at       time.Duration // since the server was made
	session  int
	renewals []store.Renewal
}

// server answers renewals as a test wants, and remembers them.
type server struct {
	start time.Time
	// answer gets the number of the statement, from 0. It may block. nil: every
	// lease is renewed.
	answer func(ctx context.Context, n int, renewals []store.Renewal) ([]store.RenewResult, error)
	// parts is answer for a server that tells of some leases before.
	parts func(ctx context.Context, renewals []store.Renewal, tell store.RenewedFunc) []store.RenewResult
	// connect is how long it takes to open a connection.
	connect time.Duration
	// begins, if not nil, is called when the opening of a connection begins. mu is held.
	begins func()

	mu             sync.Mutex
	statements     []statement
	opened, closed int
	busy, mostBusy int
}

func newServer() *server { return &server{start: time.Now()} }

func (s *server) open() Session {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.opened++

	return &session{server: s, number: s.opened}
}

// sent are the statements until now.
func (s *server) sent() []statement {
	s.mu.Lock()
	defer s.mu.Unlock()

	return slices.Clone(s.statements)
}

func (s *server) count() int { return len(s.sent()) }

// session breaks the test when it is used as no session may be.
type session struct {
	server *server
	number int

	// guarded by server.mu
	connected, inUse, renewed, failed, closed bool
}

func (s *session) Connect(ctx context.Context) (err error) {
	srv := s.server

	srv.mu.Lock()
	takes := srv.connect
	if srv.begins != nil {
		srv.begins()
	}
	srv.mu.Unlock()

	if takes > 0 {
		timer := time.NewTimer(takes)
		defer timer.Stop()

		select {
		case <-timer.C:
		case <-ctx.Done():
			err = ctx.Err()
		}
	}

	srv.mu.Lock()
	defer srv.mu.Unlock()

	if s.connected || s.failed || s.closed {
		panic(fmt.Sprintf("session %d is opened although: open %t, failed %t, closed %t", s.number, s.connected, s.failed, s.closed))
	}

	s.connected, s.failed = err == nil, err != nil

	return err
}

func (s *session) Renew(ctx context.Context, renewals []store.Renewal, tell store.RenewedFunc) ([]store.RenewResult, time.Time, error) {
	srv := s.server

	srv.mu.Lock()

	if !s.connected || s.inUse || s.failed || s.closed {
		panic(fmt.Sprintf("session %d is used although: open %t, in use %t, failed %t, closed %t",
			s.number, s.connected, s.inUse, s.failed, s.closed))
	}

	s.inUse = true
	srv.busy++
	srv.mostBusy = max(srv.mostBusy, srv.busy)
	sent := time.Now()
	n := len(srv.statements)
	srv.statements = append(srv.statements, statement{sent.Sub(srv.start), s.number, renewals})
	answer, parts := srv.answer, srv.parts
	srv.mu.Unlock()

	results, err := renewedAll(renewals), error(nil)

	switch {
	case parts != nil:
		results = parts(ctx, renewals, tell)
	case answer != nil:
		results, err = answer(ctx, n, renewals)
	}

	srv.mu.Lock()
	defer srv.mu.Unlock()

	s.inUse = false
	// One that was refused renewals, and carried others out before, is as good as new.
	s.renewed = s.renewed || err == nil
	s.failed = err != nil && !(s.renewed && store.Divides(err))
	srv.busy--

	return results, sent, err
}

func (s *session) Close() {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()

	if s.inUse || s.closed {
		panic(fmt.Sprintf("session %d is closed although: in use %t, closed %t", s.number, s.inUse, s.closed))
	}

	s.closed = true
	s.server.closed++
}

func all(renewals []store.Renewal, state store.RenewState) []store.RenewResult {
	results := make([]store.RenewResult, len(renewals))
	for i := range results {
		results[i] = store.RenewResult{State: state, ExpiresAt: time.Now().Add(renewals[i].TTL), Lease: renewals[i].TTL}
	}

	return results
}

func renewedAll(renewals []store.Renewal) []store.RenewResult { return all(renewals, store.Renewed) }

// silent waits for an answer that doesn't come.
func silent(ctx context.Context) ([]store.RenewResult, error) {
	<-ctx.Done()

	return nil, ctx.Err()
}

// holder is a lease whose callbacks are remembered.
type holder struct {
	Lease

	start time.Time
	met   atomic.Int64 // how often its row was locked

	mu      sync.Mutex
	renewed []time.Time
	lost    []Loss
	lostAt  time.Duration
}

// hold adds a lease with the margin of a tenth.
func hold(r *Renewer, id string, ttl, interval time.Duration) *holder {
	h := newHolder(id, interval)
	r.Add(&h.Lease, termOf(ttl))

	return h
}

func termOf(ttl time.Duration) Term {
	return Term{Sent: time.Now(), TTL: ttl, Margin: ttl / 10}
}

func newHolder(id string, interval time.Duration) *holder {
	h := &holder{start: time.Now()}
	h.Lease = Lease{LockID: id, Generation: 7, Interval: interval, Holder: h}

	return h
}

func (h *holder) Renewed(expiresAt time.Time, _ time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()

	h.renewed = append(h.renewed, expiresAt)
}

func (h *holder) Lost(loss Loss) {
	h.mu.Lock()
	defer h.mu.Unlock()

	h.lost = append(h.lost, loss)
	h.lostAt = time.Since(h.start)
}

func (h *holder) Locked() { h.met.Add(1) }

func (h *holder) losses() int {
	h.mu.Lock()
	defer h.mu.Unlock()

	return len(h.lost)
}

func (h *holder) renewals() int {
	h.mu.Lock()
	defer h.mu.Unlock()

	return len(h.renewed)
}

// wantLost fails unless the lease was lost once, that long after it was added,
// for the given cause if there is one.
func (h *holder) wantLost(t *testing.T, at time.Duration, gone bool, cause error) {
	t.Helper()

	h.mu.Lock()
	defer h.mu.Unlock()

	if len(h.lost) != 1 {
		t.Fatalf("%s was lost %d times, want once", h.LockID, len(h.lost))
	}

	if h.lostAt != at || h.lost[0].Gone != gone || cause != nil && !errors.Is(h.lost[0].Err, cause) {
		t.Errorf("%s was lost after %s, gone %t, err %v; want after %s, gone %t, err %v",
			h.LockID, h.lostAt, h.lost[0].Gone, h.lost[0].Err, at, gone, cause)
	}
}

func (h *holder) wantHeld(t *testing.T) {
	t.Helper()

	h.mu.Lock()
	defer h.mu.Unlock()

	if len(h.lost) > 0 {
		t.Fatalf("%s was lost after %s: %+v", h.LockID, h.lostAt, h.lost)
	}
}

// wantAtRest fails unless the renewer owns nothing any more.
func wantAtRest(t *testing.T, r *Renewer, s *server) {
	t.Helper()

	r.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()

	if s.opened != s.closed || s.busy != 0 {
		t.Errorf("%d sessions opened, %d closed, %d in use", s.opened, s.closed, s.busy)
	}
}
