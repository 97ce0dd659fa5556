//go:build unix

package faulttest

import (
	"syscall"
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
	"github.com/ismurov/pglocker/pgtesting"
)

// stopWalWriter stops the process that flushes what no commit waits for.
func stopWalWriter(t *testing.T, server *pgtesting.Server) {
	t.Helper()

	db := contract.Open(t, "pgx", server.URL())
	pid := contract.Query[int](t, db, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
	contract.Must(t, syscall.Kill(pid, syscall.SIGSTOP))
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // killed with the server, unless the test failed
}
