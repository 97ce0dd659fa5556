package listen_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ismurov/pglocker/internal/listen"
)

// obstacles is a server that listens to nobody, in one way or another.
type obstacles struct {
	// mu guards what follows.
	mu   sync.Mutex
	told bytes.Buffer
	// opened and listened count what the listener has tried.
	opened, listened int
	// open, listen and notify are the errors of those; nil: it works.
	open, listen, notify error
}

func (o *obstacles) newListener() *listen.Listener {
	return listen.New(listen.Config{
		Open: func(context.Context) (listen.Conn, error) {
			o.mu.Lock()
			defer o.mu.Unlock()

			o.opened++

			return mutter{o}, o.open
		},
		Notify: func(context.Context, string) error {
			o.mu.Lock()
			defer o.mu.Unlock()

			return o.notify
		},
		Channel: channel, Probe: probe,
		Wake: func(string) {}, WakeAll: func() {},
		Logger: slog.New(slog.NewTextHandler(o, nil)),
	})
}

func (o *obstacles) Write(line []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()

	return o.told.Write(line)
}

// tries is how many connections the listener has asked for, and how often it has begun to
// listen.
func (o *obstacles) tries() (opened, listened int) {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()

	return o.opened, o.listened
}

func (o *obstacles) set(change func()) {
	o.mu.Lock()
	defer o.mu.Unlock()

	change()
}

// log is what was told so far.
func (o *obstacles) log() string {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()

	return o.told.String()
}

// logged counts the lines of the log with a text.
func (o *obstacles) logged(text string) int { return strings.Count(o.log(), text) }

// mutter is a connection on which nothing is heard.
type mutter struct{ *obstacles }

func (m mutter) Listen(context.Context, string) error {
	m.mu.Lock()
	defer m.mu.Unlock()

	m.listened++

	return m.listen
}

func (m mutter) Wait(ctx context.Context) (channel, payload string, err error) {
	<-ctx.Done()

	return "", "", ctx.Err()
}

func (m mutter) Close() {}

// TestRefused: that a server refuses LISTEN is logged once, at level Info. The server is asked
// again after five minutes and then less often, down to once an hour, also if waiters come
// and go.
func TestRefused(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		o := &obstacles{listen: fmt.Errorf("%w: not supported", listen.ErrRefused)}
		l := o.newListener()

		l.Use()
		time.Sleep(5*time.Minute - 1)

		if opened, listened := o.tries(); opened != 1 || listened != 1 {
			t.Errorf("asked %d times over %d connections within five minutes, want once", listened, opened)
		}

		time.Sleep(time.Nanosecond)

		if _, listened := o.tries(); listened != 2 {
			t.Errorf("asked %d times after five minutes, want twice", listened)
		}

		for range 100 {
			l.Done()
			time.Sleep(time.Second)
			l.Use()
		}

		if _, listened := o.tries(); listened != 2 {
			t.Errorf("asked %d times when others come to wait, want twice", listened)
		}

		time.Sleep(24 * time.Hour)

		if _, listened := o.tries(); listened < 24 || listened > 32 {
			t.Errorf("asked %d times in a day, want about once an hour", listened)
		}

		if o.logged("level=INFO") != 1 || o.logged("\n") != 1 || o.logged("not supported") != 1 {
			t.Errorf("told: %s", o.log())
		}

		o.set(func() { o.listen = nil })
		time.Sleep(time.Hour)

		before, _ := o.tries()

		time.Sleep(24 * time.Hour)

		if opened, _ := o.tries(); opened != before {
			t.Errorf("%d connections in a day where LISTEN works, want one", 1+opened-before)
		}

		l.Done()
		l.Wait()
	})
}

// TestNeverConnected: a listener that has had no connection is not said to have lost it.
func TestNeverConnected(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		o := &obstacles{open: errors.New("connection refused")}
		l := o.newListener()

		l.Use()
		synctest.Wait()

		if o.logged("has no connection") != 1 || o.logged("lost its connection") != 0 {
			t.Errorf("told: %s", o.log())
		}

		l.Done()
		l.Wait()
	})
}

// TestProbeUnsent: a notification that could not be sent says nothing about a pooler, and
// one that was sent has no error to tell of.
func TestProbeUnsent(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		o := &obstacles{notify: fmt.Errorf("%w: no free connection in the pool (2 of 2 in use)", listen.ErrUnsent)}
		l := o.newListener()

		l.Use()
		time.Sleep(time.Hour)
		synctest.Wait()

		if o.logged("no notification could be sent") != 1 || o.logged("2 of 2 in use") != 1 || o.logged("pooler") != 0 {
			t.Errorf("told: %s", o.log())
		}

		o.set(func() { o.notify = nil })
		time.Sleep(time.Hour)
		synctest.Wait()

		if o.logged("a pooler in transaction mode?") != 1 || o.logged("error=") != 1 || o.logged("\n") != 2 {
			t.Errorf("told: %s", o.log())
		}

		l.Done()
		l.Wait()
	})
}
