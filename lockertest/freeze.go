package lockertest

import (
	"testing"

	"github.com/ismurov/pglocker/pgtesting"
)

// StartServer starts a server of the test's own, to be frozen, killed or restarted. It is stopped when the test and
// its subtests have ended. It takes about a second. Under -short the test is skipped. If the server doesn't start, the
// test fails.
func StartServer(tb testing.TB, opts ...pgtesting.ServerOption) *pgtesting.Server {
	tb.Helper()

	if testing.Short() {
		tb.Skip("lockertest: the test needs a server of its own, and -short is set")
	}

	server, err := pgtesting.StartServer(tb.Context(), opts...)
	if err != nil {
		tb.Fatalf("lockertest: starting a server: %v", err)
	}

	tb.Cleanup(func() {
		if err := server.Stop(); err != nil {
			tb.Errorf("lockertest: stopping the server: %v", err)
		}
	})

	return server
}

// Freeze stops every process of a server, and returns when they have stopped. Connections stay open without an
// answer. Holders whose leases end meanwhile lose their locks, by their own clocks.
//
// thaw lets the server go on. It may be called more than once. The end of the test calls it, too.
//
// A server that several tests share is frozen for all of them. Freeze skips the test if server is nil, as that of
// [pgtesting.TestInstance] is if it was given a server. It fails the test if the server doesn't run.
func Freeze(tb testing.TB, server *pgtesting.Server) (thaw func()) {
	tb.Helper()

	if server == nil {
		tb.Skip("lockertest: a server that was given can't be frozen")
	}

	thaw = func() {
		tb.Helper()

		if err := server.Thaw(); err != nil {
			tb.Errorf("lockertest: thawing the server: %v", err)
		}
	}

	if err := server.Freeze(); err != nil {
		tb.Fatalf("lockertest: freezing the server: %v", err)
	}

	tb.Cleanup(thaw)

	return thaw
}
