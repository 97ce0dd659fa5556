package pglocker

import (
	"context"
	"sync"
	"time"
)

// spare is one connection beside the pool, shared by all releases, and looks before a
// first renewal, that can't have one from the pool or didn't get an answer over it. It
// exists only while one of them uses it.
type spare struct {
	// mu guards what follows.
	mu      sync.Mutex
	users   int
	session *spareSession
}

// spareSession is a session that several use at once.
type spareSession struct {
	*session
	// placing has room for the one that takes the session's place.
	placing chan struct{}
}

// use returns the connection until done.
func (s *spare) use(open func() *session) *spareSession {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.users++
	if s.users == 1 {
		s.session = &spareSession{open(), make(chan struct{}, 1)}
	}

	return s.session
}

func (s *spare) done() {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.users--
	if s.users == 0 {
		s.session.Close()
		s.session = nil
	}
}

// opened opens the connection, unless it is open, there is none beside the pool, or s is nil.
// The opening has as much time as one attempt of a lease that has d left. Shorter attempts
// would never reach a server that is slow to accept a connection.
func (s *spareSession) opened(ctx context.Context, d time.Duration) error {
	if s == nil || s.places == nil {
		return nil
	}

	ctx, cancel := context.WithTimeout(ctx, attemptFor(d))
	defer cancel()

	select {
	case s.placing <- struct{}{}:
	case <-ctx.Done():
		return ended(ctx)
	}

	err := s.place(ctx)

	<-s.placing

	if err != nil {
		return err
	}

	return s.store.Connect(ctx)
}
