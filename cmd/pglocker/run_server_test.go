//go:build linux

package main

import (
	"context"
	"database/sql"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/pgtesting"
)

// newBrokenBed is a bed on a server of its own, for a test that breaks it.
func newBrokenBed(t *testing.T) (*bed, *pgtesting.Server) {
	t.Helper()

	if testing.Short() {
		t.Skip("starts a server")
	}

	server, err := pgtesting.StartServer(t.Context())
	must(t, err)
	t.Cleanup(func() { _ = server.Stop() })

	db, err := sql.Open("pgx", server.URL())
	must(t, err)
	must(t, pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}))
	must(t, db.Close())

	return newBedAt(t, server.URL()), server
}

// TestRunServerRestarts: the server is killed and comes back. The program doesn't notice.
func TestRunServerRestarts(t *testing.T) {
	t.Parallel()

	b, server := newBrokenBed(t)
	cmd := b.command("run", "--ttl", "10s", "--grace", "100ms", "x", "sh", "-c", "echo $PGLOCKER_TOKEN; read line; echo $line")
	input, err := cmd.StdinPipe()
	must(t, err)

	p := startProcess(t, cmd)
	token := p.token()

	must(t, server.Kill())
	must(t, server.Start(t.Context()))

	// Its lease is renewed on the new server.
	before := b.status("x")
	eventually(t, "the lease was renewed", func() bool { return b.status("x").ExpiresAt.After(before.ExpiresAt) })

	_, err = input.Write([]byte("went on\n"))
	must(t, err)
	p.says("went on")
	p.ends(0)

	if before.Generation != token || !b.free("x") {
		t.Errorf("the token was %d and is %d, or the lock is held", token, before.Generation)
	}
}

// pauses returns a function that says for how long the machine has made this process wait at most since then.
func pauses(t *testing.T) (longest func() time.Duration) {
	t.Helper()

	const tick = 10 * time.Millisecond

	var most atomic.Int64

	go func() {
		for last := time.Now(); t.Context().Err() == nil; {
			time.Sleep(tick)

			most.Store(max(most.Load(), int64(time.Since(last)-tick)))
			last = time.Now()
		}
	}()

	return func() time.Duration { return time.Duration(most.Load()) }
}

// TestRunServerHangs: the server doesn't answer any more. The program and its descendants are dead before the
// lease ends, though they ignore TERM.
func TestRunServerHangs(t *testing.T) {
	t.Parallel()
	needs(t, "setsid")

	b, server := newBrokenBed(t)
	// The command has its own standard output until it ends. Those that it runs have this pipe.
	pipe := filepath.Join(t.TempDir(), "pipe")
	must(t, syscall.Mkfifo(pipe, 0o600))

	cmd := b.command("run", "--ttl", "10s", "--grace", "1s", "x", "sh", "-c", "exec >$0;"+leaving, pipe)
	p := startListening(t, cmd, func() io.ReadCloser {
		reader, err := os.Open(pipe)
		if err != nil {
			t.Error(err)
		}

		return reader
	})
	p.token()
	p.says("left")
	p.says("left")

	frozen, paused := time.Now(), pauses(t)
	before := b.status("x")

	must(t, server.Freeze())
	p.silent()
	p.ends(74)

	// Until then a renewal that is on its way may still reach the server.
	time.Sleep(time.Until(frozen.Add(11 * time.Second)))
	must(t, server.Thaw())

	dead, status := p.silentAt, b.status("x")

	switch longest := paused(); {
	case dead.Before(status.ExpiresAt) && status.ExpiresAt.Before(frozen.Add(11*time.Second)):
	case longest > 200*time.Millisecond:
		// The command has a second between KILL and the end of the lease. No lock is safe while its process is
		// paused.
		t.Skipf("the machine is too busy: it has paused the test for %s", longest)
	default:
		t.Errorf("they were dead at %s, and the lease ended at %s, after %s\n%s", dead, status.ExpiresAt, before.ExpiresAt, p.stderr)
	}
}

// TestRunServerDies: the server doesn't come back.
func TestRunServerDies(t *testing.T) {
	t.Parallel()

	b, server := newBrokenBed(t)
	p := b.launch("run", "--ttl", "2s", "--grace", "100ms", "x", "sh", "-c", "echo runs; exec sleep 1000")
	p.says("runs")
	must(t, server.Kill())
	p.silent()
	p.ends(74)

	if said := p.stderr.String(); !strings.Contains(said, "lock lost") || !strings.Contains(said, "connect") {
		t.Errorf("it says %q", said)
	}

	b.fails(69, []string{"can't connect"}, "run", "x", "true")
}

// TestRunEndsWithoutServer: the program ends while the server is away. Its exit code is that of the command.
func TestRunEndsWithoutServer(t *testing.T) {
	t.Parallel()

	b, server := newBrokenBed(t)
	cmd := b.command("run", "--ttl", "3s", "--grace", "100ms", "x", "sh", "-c", "echo runs; read line; exit 5")
	input, err := cmd.StdinPipe()
	must(t, err)

	p := startProcess(t, cmd)
	p.says("runs")
	must(t, server.Shutdown(context.WithoutCancel(t.Context()), pgtesting.ImmediateShutdown))
	must(t, input.Close())
	p.ends(5)

	if said := p.stderr.String(); !strings.Contains(said, "not released") || !strings.Contains(said, "free when its lease ends") {
		t.Errorf("it says %q", said)
	}
}
