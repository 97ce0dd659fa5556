package cluster

import (
	"io"
	"net"
	"testing"
	"time"
)

// TestProxy: a break takes effect, also on top of the same break, and healing ends it.
func TestProxy(t *testing.T) {
	t.Parallel()

	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer upstream.Close()

	go func() {
		for {
			conn, err := upstream.Accept()
			if err != nil {
				return
			}

			go func() { _, _ = io.Copy(conn, conn) }() // an echo
		}
	}()

	p, err := newProxy("test", upstream.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer p.proxy.Stop()

	echoes := func() bool {
		conn, err := net.Dial("tcp", p.address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()

		_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
		_, err = conn.Write([]byte("x"))

		n, readErr := conn.Read(make([]byte, 1))

		return err == nil && readErr == nil && n == 1
	}

	if !echoes() {
		t.Error("no echo through a proxy that isn't broken")
	}

	for range 2 {
		if err := p.Break("timeout", Replies, `{"timeout": 0}`); err != nil {
			t.Fatal(err)
		}

		if echoes() {
			t.Error("an echo through a black hole")
		}
	}

	if err := p.Break("latency", Requests, `{"latency": 1}`); err != nil {
		t.Fatal(err)
	}

	if n := len(p.proxy.Toxics.GetToxicArray()); n != 2 {
		t.Errorf("%d toxics, want one for each direction", n)
	}

	p.Heal()

	if n := len(p.proxy.Toxics.GetToxicArray()); n != 0 {
		t.Errorf("%d toxics after healing", n)
	}

	if !echoes() {
		t.Error("no echo after healing")
	}
}
