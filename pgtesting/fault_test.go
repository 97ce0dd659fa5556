//go:build unix

package pgtesting

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestFreezeAndThaw(t *testing.T) {
	s := abusedServer(t)
	before := open(t, "pgx", s.URL())
	conn, err := before.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	// Clients that come and go make the postmaster fork all the time.
	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			db := open(t, "postgres", s.URL())
			db.SetMaxIdleConns(-1)
			for ctx.Err() == nil {
				_ = db.PingContext(ctx)
			}
		})
	}
	for range 5 {
		for range 2 {
			if err := s.Freeze(); err != nil {
				t.Fatal(err)
			}
		}
		found := processesOf(t, s.DataDir())
		if len(found) < 5 {
			t.Errorf("only %d processes of the server are found", len(found))
		}
		for _, p := range found {
			if !p.stopped {
				t.Errorf("process %d runs", p.pid)
			}
		}
		if err := s.Shutdown(t.Context(), FastShutdown); !errors.Is(err, ErrServerFrozen) {
			t.Errorf("Shutdown of a frozen server: %v", err)
		}
		if err := s.Start(t.Context()); !errors.Is(err, ErrServerUp) {
			t.Errorf("Start of a frozen server: %v", err)
		}
		for range 2 {
			if err := s.Thaw(); err != nil {
				t.Fatal(err)
			}
		}
		// The old connection works again.
		if err := conn.PingContext(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	clients.Wait()

	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	short, cancelShort := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancelShort()
	if err := before.PingContext(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a frozen server answers: %v", err)
	}
	if err := s.Thaw(); err != nil {
		t.Fatal(err)
	}
}

func TestKillKeepsCommits(t *testing.T) {
	s := abusedServer(t)
	db := open(t, "pgx", s.URL())
	execute(t, db, `DROP TABLE IF EXISTS numbers`)
	execute(t, db, `CREATE TABLE numbers (n int)`)
	port := s.Port()
	acknowledged := 0
	for round := range 3 {
		for range 20 {
			execute(t, db, `INSERT INTO numbers VALUES (1)`)
			acknowledged++
		}
		segments := sharedMemoryOf(s.DataDir())
		if round == 1 {
			if err := s.Freeze(); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Kill(); err != nil {
			t.Fatal(err)
		}
		if left := processesOf(t, s.DataDir()); len(left) != 0 {
			t.Errorf("processes are left: %v", left)
		}
		awaitNoSharedMemory(t, segments)
		if err := open(t, "postgres", s.URL()).PingContext(t.Context()); err == nil {
			t.Error("a killed server answers")
		}
		for name, call := range map[string]func() error{
			"Freeze":   s.Freeze,
			"Thaw":     s.Thaw,
			"Kill":     s.Kill,
			"Shutdown": func() error { return s.Shutdown(t.Context(), FastShutdown) },
		} {
			if err := call(); !errors.Is(err, ErrServerDown) {
				t.Errorf("%s of a killed server: %v", name, err)
			}
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(s.Log(), "not properly shut down") {
			t.Errorf("no recovery in the log: %s", s.Log())
		}
		db = open(t, "pgx", s.URL())
		if got := query[int](t, db, `SELECT count(*) FROM numbers`); got != acknowledged {
			t.Fatalf("%d rows after %d acknowledged ones", got, acknowledged)
		}
	}
	if s.Port() != port {
		t.Errorf("the port was %d and is %d", port, s.Port())
	}
	if err := s.Start(t.Context()); !errors.Is(err, ErrServerUp) {
		t.Errorf("Start of a running server: %v", err)
	}
}

func TestKillOfThePostmasterByOthers(t *testing.T) {
	s := abusedServer(t)
	// The backends can't notice that their parent dies.
	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.main.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.main.done
	if err := s.Kill(); !errors.Is(err, ErrServerDown) {
		t.Errorf("Kill: %v", err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := open(t, "pgx", s.URL()).PingContext(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestShutdownModes(t *testing.T) {
	s := abusedServer(t)
	for _, c := range []struct {
		mode  ShutdownMode
		log   string
		after string
	}{
		{SmartShutdown, "received smart shutdown request", "database system was shut down"},
		{FastShutdown, "received fast shutdown request", "database system was shut down"},
		{ImmediateShutdown, "received immediate shutdown request", "not properly shut down"},
	} {
		if err := s.Shutdown(t.Context(), c.mode); err != nil {
			t.Fatal(err)
		}
		if left := processesOf(t, s.DataDir()); len(left) != 0 {
			t.Errorf("processes are left: %v", left)
		}
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		tail := s.Log()
		if at := strings.LastIndex(tail, "received"); at < 0 || !strings.HasPrefix(tail[at:], c.log) {
			t.Errorf("the log says %q, want %q", tail[max(at, 0):], c.log)
		}
		if at := strings.LastIndex(tail, "received"); !strings.Contains(tail[max(at, 0):], c.after) {
			t.Errorf("the log after the start: %q, want %q", tail[max(at, 0):], c.after)
		}
	}
	if err := s.Restart(t.Context(), FastShutdown); err != nil {
		t.Fatal(err)
	}
	wantErrorText(t, s.Shutdown(t.Context(), 7), "no such shutdown mode")
}

func TestSmartShutdownWaitsForClients(t *testing.T) {
	s := abusedServer(t)
	db := open(t, "pgx", s.URL())
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx, SmartShutdown); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Shutdown with a client connected: %v", err)
	}
	if err := conn.PingContext(t.Context()); err != nil {
		t.Errorf("the client was cut: %v", err)
	}
	_ = conn.Close()
	if err := s.Shutdown(t.Context(), FastShutdown); err != nil {
		t.Fatal(err)
	}
	if err := s.Shutdown(t.Context(), FastShutdown); !errors.Is(err, ErrServerDown) {
		t.Errorf("Shutdown twice: %v", err)
	}
}

func TestStartIsCancelledAndTriedAgain(t *testing.T) {
	s := abusedServer(t)
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if err := s.Start(ctx); !errors.Is(err, cause) {
		t.Fatalf("the error is %v, want %v", err, cause)
	}
	if left := processesOf(t, s.DataDir()); len(left) != 0 {
		t.Errorf("processes are left: %v", left)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// Where there is no /proc, ps must see the same.
func TestFindProcessesWithPS(t *testing.T) {
	s := sharedServer(t)
	if _, err := exec.LookPath("ps"); err != nil {
		t.Skip(err)
	}
	count := func(find func(func(string) bool) ([]process, error)) func() int {
		return func() int {
			found, err := find(s.owns)
			if err != nil {
				t.Fatal(err)
			}
			return len(found)
		}
	}
	eventually(t, "both find the same number", func() bool {
		n := count(findWithPS)()
		return n >= 5 && n == count(findProcesses)()
	})
}
