package listen_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/listen"
)

// TestProven: the listener is believed once it has heard a notification of its
// own, and whoever waits is then told to look, since it need no longer poll.
func TestProven(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := &server{deaf: true}
		l := s.newListener()

		s.expect(t, "unused", l, false, 0, 0)
		l.Use()
		s.expect(t, "before the probe", l, false, 1, 1)

		// A release that is heard is passed on, but another's may not have been.
		s.last().arrived <- [2]string{channel, "early"}
		s.expect(t, "after a release, before the probe", l, false, 1, 1)

		s.last().arrived <- [2]string{probe, ""}
		s.expect(t, "after the probe", l, true, 1, 1)
		s.set(func() { s.deaf = false })

		if s.allWoken() != 1 {
			t.Errorf("all were woken %d times, want once", s.allWoken())
		}

		s.last().arrived <- [2]string{channel, "a"}
		s.last().arrived <- [2]string{"some other channel", "b"}
		s.last().arrived <- [2]string{channel, ""}

		// Nothing of this depends on the time of the probe.
		time.Sleep(time.Hour)
		s.expect(t, "after an hour", l, true, 1, 1)

		if want := []string{"early", "a", ""}; !slices.Equal(s.woken, want) {
			t.Errorf("woken: %q, want %q", s.woken, want)
		}

		l.Done()
		l.Wait()
		s.expect(t, "after Wait", l, false, 0, 1)
	})
}

// TestDeaf: a connection that accepts LISTEN and hears nothing, as behind a pooler,
// is not believed, however long it lasts. It is kept, and asked again now and then:
// after a second, and no more often than once a minute in the end.
func TestDeaf(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := &server{deaf: true}
		l := s.newListener()

		l.Use()
		time.Sleep(time.Second - 1)
		s.expect(t, "before the second probe", l, false, 1, 1)

		if got := s.probed(); got != 1 {
			t.Errorf("%d probes within a second, want one", got)
		}

		time.Sleep(time.Nanosecond)
		s.expect(t, "after the second probe", l, false, 1, 1)

		if got := s.probed(); got != 2 {
			t.Errorf("%d probes after a second, want two", got)
		}

		time.Sleep(time.Hour)
		s.expect(t, "after an hour", l, false, 1, 1)

		if got := s.probed(); got < 60 || got > 70 {
			t.Errorf("%d probes in an hour, want about one a minute", got)
		}

		s.set(func() { s.deaf = false })
		time.Sleep(time.Minute)
		s.expect(t, "when it hears", l, true, 1, 1)

		if s.allWoken() != 1 {
			t.Errorf("all were woken %d times, want once", s.allWoken())
		}

		l.Done()
		l.Wait()
	})
}

// TestReconnect: a lost connection is no longer believed at once; it is opened
// anew after pauses that grow up to seconds, and then everybody looks, for what
// was released meanwhile was not heard.
func TestReconnect(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		l := s.newListener()

		l.Use()
		s.expect(t, "at first", l, true, 1, 1)

		s.set(func() { s.refuses = fmt.Errorf("connection refused") })
		s.breakConn()
		s.expect(t, "when it is lost", l, false, 0, 1)

		time.Sleep(time.Minute)
		synctest.Wait()

		s.set(func() {
			if n := len(s.opened); n < 15 || n > 60 {
				t.Errorf("%d attempts in a minute, want some but few", n)
			}

			limit := 20 * time.Millisecond

			for i, at := range s.opened[2:] {
				limit = min(2*limit, 5*time.Second)

				pause := at.Sub(s.opened[i+1])
				if pause < limit/2 || pause > limit {
					t.Errorf("pause %d is %s, want %s to %s", i, pause, limit/2, limit)
				}
			}

			s.refuses = nil
		})

		all := s.allWoken()

		time.Sleep(5 * time.Second)
		s.expect(t, "when it is back", l, true, 1, s.attempts())

		if s.allWoken() != all+1 {
			t.Errorf("all were woken %d times, want once", s.allWoken()-all)
		}

		// One that lasted counts as a new beginning.
		time.Sleep(time.Minute)

		before := s.attempts()

		s.breakConn()
		time.Sleep(20 * time.Millisecond)
		s.expect(t, "soon after it is lost again", l, true, 1, before+1)

		l.Done()
		l.Wait()
	})
}

// TestFallsSilent: a connection that used to hear and no longer does is opened anew,
// and everybody looks meanwhile.
func TestFallsSilent(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := new(server)
		l := s.newListener()

		l.Use()
		time.Sleep(10 * time.Minute)
		s.expect(t, "while it hears", l, true, 1, 1)

		all := s.allWoken()

		s.set(func() { s.deaf = true })
		time.Sleep(time.Minute + 11*time.Second)
		s.expect(t, "when it has fallen silent", l, false, 1, 2)

		if s.allWoken() <= all {
			t.Error("nobody was told to look")
		}

		s.set(func() { s.deaf = false })
		time.Sleep(time.Minute)
		s.expect(t, "when it hears again", l, true, 1, 2)

		l.Done()
		l.Wait()
	})
}

// TestFallsSilentAfterSpareProbe: a probe that was heard beside another, or late, is not
// taken for the next one.
func TestFallsSilentAfterSpareProbe(t *testing.T) {
	t.Parallel()

	heard := [2]string{probe, ""}

	for name, spare := range map[string]func(s *server){
		"two at first": func(s *server) {
			s.last().arrived <- heard
			synctest.Wait()
			s.last().arrived <- heard
		},
		"late": func(s *server) {
			s.last().arrived <- heard
			time.Sleep(30 * time.Second)
			s.last().arrived <- heard
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := &server{deaf: true}
				l := s.newListener()

				l.Use()
				time.Sleep(1500 * time.Millisecond)

				if got := s.probed(); got != 2 {
					t.Fatalf("%d probes, want two", got)
				}

				spare(s)
				s.set(func() { s.deaf = false })
				time.Sleep(10 * time.Minute)
				s.expect(t, "while it hears", l, true, 1, 1)

				s.set(func() { s.deaf = true })
				time.Sleep(time.Minute + 11*time.Second)
				s.expect(t, "when it has fallen silent", l, false, 1, 2)

				l.Done()
				l.Wait()
			})
		})
	}
}

// TestLinger: the connection outlives the last who waits by as long as it has heard, from a quarter of a second to
// five seconds, unless somebody comes meanwhile. One that is lost meanwhile isn't opened again.
func TestLinger(t *testing.T) {
	t.Parallel()

	for used, linger := range map[time.Duration]time.Duration{
		0:           250 * time.Millisecond,
		time.Second: time.Second,
		time.Hour:   5 * time.Second,
	} {
		t.Run(used.String(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := new(server)
				l := s.newListener()

				l.Use()
				l.Use()
				l.Done()
				time.Sleep(used)
				s.expect(t, "while one of two waits", l, true, 1, 1)

				l.Done()
				time.Sleep(linger - 1)
				s.expect(t, "within the linger", l, true, 1, 1)
				l.Use()
				time.Sleep(time.Hour)
				s.expect(t, "when somebody came within the linger", l, true, 1, 1)

				l.Done()
				time.Sleep(5 * time.Second)
				s.expect(t, "after the linger", l, false, 0, 1)

				l.Use()
				time.Sleep(used)
				s.expect(t, "with a second connection", l, true, 1, 2)

				l.Done()
				time.Sleep(linger)
				s.expect(t, "after its linger", l, false, 0, 2)

				l.Use()
				s.expect(t, "with a third connection", l, true, 1, 3)
				l.Done()
				s.breakConn()
				time.Sleep(time.Hour)
				s.expect(t, "when it was lost within the linger", l, false, 0, 3)

				l.Use()
				s.expect(t, "with a fourth connection", l, true, 1, 4)

				l.Done()

				began := time.Now()

				l.Wait()
				s.expect(t, "after Wait", l, false, 0, 4)

				if took := time.Since(began); took != 0 {
					t.Errorf("Wait took %s, want it to cut the linger short", took)
				}
			})
		})
	}
}

// TestUnsupported: a driver that can't listen is asked once.
func TestUnsupported(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := &server{refuses: fmt.Errorf("%w: some driver", listen.ErrUnsupported)}
		l := s.newListener()

		for range 3 {
			l.Use()
			s.expect(t, "unsupported", l, false, 0, 1)
			l.Done()
			time.Sleep(24 * time.Hour)
		}

		l.Wait()
	})
}

// TestHangs: an attempt to connect that hangs is repeated, and ends when nobody
// waits any more.
func TestHangs(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := &server{hangs: true}
		l := s.newListener()

		l.Use()
		time.Sleep(30*time.Second - 1)
		s.expect(t, "within its time", l, false, 0, 1)

		time.Sleep(20 * time.Millisecond)
		s.expect(t, "after its time", l, false, 0, 2)

		l.Done()

		began := time.Now()

		l.Wait()

		if took := time.Since(began); took != 0 {
			t.Errorf("Wait took %s, want it to end the attempt", took)
		}
	})
}

// TestLateProbe: what a connection hears after the listener has let go of it
// proves nothing.
func TestLateProbe(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		s := &server{deaf: true, late: true}
		l := s.newListener()

		l.Use()
		synctest.Wait()
		l.Done()
		time.Sleep(250*time.Millisecond + lateness)
		s.expect(t, "when the probe has come too late", l, false, 0, 1)
		l.Wait()

		if s.late {
			t.Error("the probe has not come")
		}
	})
}
