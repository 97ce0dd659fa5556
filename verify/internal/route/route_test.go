package route_test

import (
	"bufio"
	"net"
	"testing"
	"time"

	"github.com/ismurov/pglocker/verify/internal/route"
)

// named is a server that sends its name to each connection, and keeps the connection.
func named(t *testing.T, name string) string {
	t.Helper()

	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = listener.Close() })

	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}

			_, _ = conn.Write([]byte(name + "\n"))
		}
	}()

	return listener.Addr().String()
}

// TestRoute: a route leads to one server at a time. When it is turned to another, nothing
// of what was open goes on.
func TestRoute(t *testing.T) {
	t.Parallel()

	one, two := named(t, "one"), named(t, "two")

	r, err := route.New(one)
	if err != nil {
		t.Fatal(err)
	}

	connect := func() (*bufio.Reader, string) {
		conn, err := net.Dial("tcp", r.Address())
		if err != nil {
			t.Fatal(err)
		}

		t.Cleanup(func() { _ = conn.Close() })

		if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}

		reader := bufio.NewReader(conn)
		line, _ := reader.ReadString('\n')

		return reader, line
	}

	first, line := connect()
	if line != "one\n" {
		t.Fatalf("the route leads to %q, want one", line)
	}

	r.To(two)

	if more, err := first.ReadString('\n'); err == nil {
		t.Errorf("the connection to one goes on: %q", more)
	} else if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		t.Error("the connection to one was left open")
	}

	second, line := connect()
	if line != "two\n" {
		t.Errorf("the route leads to %q, want two", line)
	}

	r.To("")

	if _, line := connect(); line != "" {
		t.Errorf("the route to nowhere leads to %q", line)
	}

	if err := r.Close(); err != nil {
		t.Error(err)
	}

	if _, err := second.ReadString('\n'); err == nil {
		t.Error("the connection to two outlives the route")
	}
}
