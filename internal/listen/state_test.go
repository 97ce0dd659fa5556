package listen_test

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/listen"
)

// TestStates: each change of the state is told, in order, and the listener rests at the end.
func TestStates(t *testing.T) {
	t.Parallel()

	const (
		resting, polling, hearing = listen.Resting, listen.Polling, listen.Hearing
	)

	for name, test := range map[string]struct {
		use  func(s *server, l *listen.Listener)
		want []listen.State // from, to, from, to
	}{
		"heard": {
			func(*server, *listen.Listener) {},
			[]listen.State{resting, polling, polling, hearing, hearing, resting},
		},
		"two waiters": {
			func(_ *server, l *listen.Listener) {
				l.Use()
				l.Done()
			},
			[]listen.State{resting, polling, polling, hearing, hearing, resting},
		},
		"used again within the linger": {
			func(_ *server, l *listen.Listener) {
				l.Done()
				time.Sleep(time.Millisecond)
				l.Use()
			},
			[]listen.State{resting, polling, polling, hearing, hearing, resting},
		},
		"connection lost": {
			func(s *server, _ *listen.Listener) {
				s.breakConn()
				time.Sleep(time.Minute)
			},
			[]listen.State{resting, polling, polling, hearing, hearing, polling, polling, hearing, hearing, resting},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := new(server)
				l := s.newListener()

				l.Use()
				synctest.Wait()
				test.use(s, l)
				synctest.Wait()
				l.Done()
				time.Sleep(time.Second)
				l.Wait()

				if !slices.Equal(s.states, test.want) {
					t.Errorf("told of %q, want %q", s.states, test.want)
				}
			})
		})
	}
}

// TestStatesUnsupported: with a driver that can't listen, waiters poll as long as there are any, each time.
func TestStatesUnsupported(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := &server{refuses: errors.Join(listen.ErrUnsupported)}
		l := s.newListener()

		for range 2 {
			l.Use()
			synctest.Wait()
			l.Done()
			synctest.Wait()
		}

		l.Wait()

		want := []listen.State{
			listen.Resting, listen.Polling, listen.Polling, listen.Resting,
			listen.Resting, listen.Polling, listen.Polling, listen.Resting,
		}
		if !slices.Equal(s.states, want) {
			t.Errorf("told of %q, want %q", s.states, want)
		}
	})
}
