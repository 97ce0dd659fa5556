package pglocker

import "sync"

// spare is one connection beside the pool, shared by all releases, and looks before a
// first renewal, that can't have one from the pool or didn't get an answer over it. It
// exists only while one of them uses it.
type spare struct {
	// mu guards what follows.
	mu      sync.Mutex
	users   int
	session *session
}

// use returns the connection until done.
func (s *spare) use(open func() *session) *session {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.users++
	if s.users == 1 {
		s.session = open()
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
