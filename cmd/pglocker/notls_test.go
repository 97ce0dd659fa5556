package main

import (
	"bytes"
	"context"
	"net"
	"testing"
)

// fakeServer is a connection that reads what the server answers. closed counts those that were closed.
type fakeServer struct {
	net.Conn

	answers bytes.Buffer
	closed  *int
}

func (f *fakeServer) Read(b []byte) (int, error) { return f.answers.Read(b) }

func (f *fakeServer) Close() error {
	*f.closed++

	return nil
}

// TestGoesOnwardWithoutTLS: the connection on which TLS was refused, and no other, is that of the next dial to the same
// address.
func TestGoesOnwardWithoutTLS(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		answer       string
		block        int
		next         string
		dials, close int
	}{
		{"N", 1, "a:1", 1, 0},
		{"N", 1, "b:1", 2, 1},
		{"S", 1, "a:1", 2, 1},
		{"E", 1, "a:1", 2, 1},
		{"N", 64, "a:1", 2, 1}, // a notice
		{"NN", 1, "a:1", 2, 1},
		{"", 1, "a:1", 2, 1},
	} {
		var dials, closed int

		o := &onward{dial: func(context.Context, string, string) (net.Conn, error) {
			dials++

			return &fakeServer{answers: *bytes.NewBufferString(c.answer), closed: &closed}, nil
		}}

		conn, err := o.connect(t.Context(), "tcp", "a:1")
		must(t, err)

		for range max(len(c.answer), 1) {
			_, _ = conn.Read(make([]byte, c.block)) // it may have nothing to say
		}

		must(t, conn.Close())

		_, err = o.connect(t.Context(), "tcp", c.next)
		must(t, err)

		if dials != c.dials || closed != c.close {
			t.Errorf("%+v: it has dialled %d times, and closed %d connections", c, dials, closed)
		}
	}
}

// TestGoesOnwardInOneAttempt: a later attempt, and one at the same time, makes a connection of its own.
func TestGoesOnwardInOneAttempt(t *testing.T) {
	t.Parallel()

	var dials, closed int

	o := &onward{dial: func(context.Context, string, string) (net.Conn, error) {
		dials++

		return &fakeServer{answers: *bytes.NewBufferString("N"), closed: &closed}, nil
	}}

	for range 2 {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()

		conn, err := o.connect(ctx, "tcp", "a:1")
		must(t, err)

		_, err = conn.Read(make([]byte, 1))
		must(t, err)
		must(t, conn.Close())
	}

	if dials != 2 || closed != 1 {
		t.Errorf("it has dialled %d times, and closed %d connections", dials, closed)
	}
}
