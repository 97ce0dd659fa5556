//go:build unix

package main

import (
	"net/url"
	"testing"
)

// TestOneConnectionWithoutTLS: a server that refuses TLS is asked for one connection by sslmode=prefer, the default.
func TestOneConnectionWithoutTLS(t *testing.T) {
	t.Parallel()

	b, v := throughValve(t, noReply, "no request has this text")

	u, err := url.Parse(b.env[0][len("PGLOCKER_DSN="):])
	must(t, err)

	query := u.Query()
	query.Del("sslmode")
	u.RawQuery = query.Encode()

	b.ok("run", "-n", "-d", u.String(), "x", "true")

	v.mu.Lock()
	defer v.mu.Unlock()

	if connections := len(v.conns) / 2; connections != 1 {
		t.Errorf("it has made %d connections", connections)
	}
}
