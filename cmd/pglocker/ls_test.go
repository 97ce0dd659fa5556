package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

func TestLs(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	if out := b.ok("ls", "-o", "json"); out != "[]\n" {
		t.Errorf("of an empty table: %q", out)
	}

	held := b.hold("jobs/a")
	expired := b.expire("jobs/b")
	b.create("other")

	records := b.list()
	if len(records) != 3 {
		t.Fatalf("%d locks, want 3: %+v", len(records), records)
	}

	if r := records[0]; r.ID != "jobs/a" || r.State != stateHeld || r.Token != held.Token() || r.Remaining <= 0 ||
		!strings.HasPrefix(r.owner(), "other#") || r.AcquiredAt == nil || r.Kind != "lock" {
		t.Errorf("the held lock: %+v", r)
	}

	if r := records[1]; r.State != stateExpired || r.Token != expired.Generation || r.Remaining != 0 || r.owner() != expired.Owner {
		t.Errorf("the expired lock: %+v", r)
	}

	if r := records[2]; r.State != stateFree || r.Owner != nil || r.AcquiredAt != nil {
		t.Errorf("the free lock: %+v", r)
	}

	text := b.ok("ls")
	if lines := strings.Split(text, "\n"); len(lines) != 5 || !strings.HasPrefix(lines[1], "jobs/a  held     ") {
		t.Errorf("as text:\n%s", text)
	}
}

// TestLsFieldNames: programs read these names.
func TestLsFieldNames(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.create("a")

	names := decode[[]map[string]any](t, b.ok("ls", "-o", "json"))[0]
	for _, name := range []string{"id", "kind", "name", "state", "token", "owner", "acquired_at", "expires_at", "remaining_seconds", "waited"} {
		if _, ok := names[name]; !ok {
			t.Errorf("no field %q", name)
		}
	}
}

func TestLsFilters(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.hold("jobs/held")
	b.expire("jobs/expired")
	b.create("other")

	permit, err := b.locker.TryLock(t.Context(), "kept", time.Minute, pglocker.WithMinHold(time.Hour))
	must(t, err)
	must(t, permit.Unlock(t.Context()))

	semaphore, err := b.locker.NewSemaphore("pool", 2)
	must(t, err)

	_, err = semaphore.TryAcquire(t.Context(), time.Minute)
	must(t, err)

	for _, c := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"jobs/expired", "jobs/held", "kept", "other", "pglocker:semaphore:pool:1"}},
		{[]string{"jobs/"}, []string{"jobs/expired", "jobs/held"}},
		{[]string{"--held"}, []string{"jobs/held", "kept", "pglocker:semaphore:pool:1"}},
		{[]string{"--expired"}, []string{"jobs/expired"}},
		{[]string{"--holder", "other", "jobs"}, []string{"jobs/expired", "jobs/held"}},
		{[]string{"--holder", "nobody"}, nil},
		{[]string{"--kind", "semaphore"}, []string{"pglocker:semaphore:pool:1"}},
		{[]string{"--kind", "semaphore", "-a"}, []string{"pglocker:semaphore:pool:1", "pglocker:semaphore:pool:gate"}},
		{[]string{"--kind", "election"}, nil},
	} {
		var ids []string
		for _, r := range b.list(c.args...) {
			ids = append(ids, r.ID)
		}

		if !slices.Equal(ids, c.want) {
			t.Errorf("ls %q: %q, want %q", c.args, ids, c.want)
		}
	}

	if r := b.list("kept")[0]; r.State != stateMinHold || r.Remaining < 60 {
		t.Errorf("the minimum hold: %+v", r)
	}
}

// TestThreeColumns: a table of three columns works, and what it can't show is said.
func TestThreeColumns(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.exec(`CREATE TABLE three (lock_id TEXT PRIMARY KEY, generation BIGINT NOT NULL, expires_at TIMESTAMPTZ NOT NULL)`)
	b.exec(`INSERT INTO three VALUES ('a', 3, clock_timestamp() + interval '1 hour'), ('b', 4, clock_timestamp())`)
	b.env = append(b.env, "PGLOCKER_SCHEMA=public", "PGLOCKER_TABLE=three")

	o := b.fails(0, []string{"lacks the columns owner and acquired_at"}, "ls")
	if !strings.Contains(o.stdout, "a     held") || strings.Contains(o.stdout, "OWNER") {
		t.Errorf("as text:\n%s", o.stdout)
	}

	if r := b.list(); len(r) != 2 || r[0].State != stateHeld || r[0].Owner != nil || r[1].State != stateFree {
		t.Errorf("listed %+v", r)
	}

	b.fails(exitUnavailable, []string{"shows no owners"}, "ls", "--expired")
	b.fails(exitUnavailable, []string{"shows no owners"}, "ls", "--waited")

	if text := b.ok("show", "a"); !strings.Contains(text, "not known") {
		t.Errorf("shown:\n%s", text)
	}

	if text := b.ok("free", "a", "--token", "3", "--reason", "test", "--yes"); text != "released a, token 3\n" {
		t.Errorf("freed: %q", text)
	}
}

// TestWaited: a lock that others wait for is found.
func TestWaited(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.hold("free")
	held := b.hold("wanted")

	if r := b.list("--waited"); len(r) != 0 {
		t.Errorf("nobody waits, and listed is %+v", r)
	}

	waiter, err := pglocker.New(b.db, &pglocker.Config{Owner: "waiter"})
	must(t, err)

	granted := make(chan error, 1)

	go func() {
		_, err := waiter.Lock(t.Context(), "wanted", time.Minute)
		granted <- err
	}()

	b.await("the waiter's mark", func() bool {
		for s, err := range b.locker.Locks(t.Context(), pglocker.LocksFilter{Prefix: "wanted"}) {
			must(t, err)

			return s.Waited
		}

		return false
	})

	if r := b.list("--waited"); len(r) != 1 || r[0].ID != "wanted" || r[0].Waited == nil || !*r[0].Waited {
		t.Errorf("listed %+v", r)
	}

	if text := b.ok("show", "wanted"); !strings.Contains(text, "waited for  yes") {
		t.Errorf("shown:\n%s", text)
	}

	must(t, held.Unlock(t.Context()))
	must(t, <-granted)
	must(t, waiter.Close(t.Context()))
}

func TestLsWatch(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	lock := b.hold("a")

	cmd := b.command("ls", "--watch", "--interval", "20ms", "-o", "json")
	lines := b.start(cmd)

	type snapshot struct {
		At    time.Time    `json:"at"`
		Locks []lockRecord `json:"locks"`
	}

	await := func(state string) {
		t.Helper()

		for line := range lines {
			s := decode[snapshot](t, line)
			if !s.At.IsZero() && len(s.Locks) == 1 && s.Locks[0].State == state {
				return
			}
		}

		t.Fatalf("ls ended before the lock was %s", state)
	}

	await(stateHeld)
	must(t, lock.Unlock(t.Context()))
	await(stateFree)

	must(t, cmd.Process.Signal(syscall.SIGINT))

	for range lines { // to the end
	}

	_ = cmd.Wait()

	if status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() || status.Signal() != syscall.SIGINT {
		t.Errorf("interrupted, it ends by %v", cmd.ProcessState)
	}
}

// TestLsWatchOutlivesTheServer: the connections are cut, and it goes on.
func TestLsWatchOutlivesTheServer(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.create("a")

	cmd := b.command("ls", "--watch", "--interval", "20ms", "-o", "json")
	lines := b.start(cmd)

	<-lines
	b.exec("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pglocker ls' AND datname = current_database()")
	b.create("b")

	for line := range lines {
		if strings.Contains(line, `"id":"b"`) {
			return
		}
	}

	t.Error("ls ended")
}

// list runs ls -o json.
func (b *bed) list(args ...string) []lockRecord {
	b.t.Helper()

	return decode[[]lockRecord](b.t, b.ok(append([]string{"ls", "-o", "json"}, args...)...))
}

// create makes a free lock.
func (b *bed) create(id string) {
	b.t.Helper()

	_, err := b.locker.CreateLock(b.t.Context(), id)
	must(b.t, err)
}

// start starts the command and returns the lines of its standard output. It is killed when the test ends.
func (b *bed) start(cmd *exec.Cmd) <-chan string {
	b.t.Helper()

	read, write, err := os.Pipe()
	must(b.t, err)

	cmd.Stdout = write
	must(b.t, cmd.Start())
	must(b.t, write.Close())

	lines := make(chan string)
	ctx, cancel := context.WithCancel(context.Background())

	go func() {
		defer close(lines)

		for in := bufio.NewScanner(read); in.Scan(); {
			select {
			case lines <- in.Text():
			case <-ctx.Done():
				return
			}
		}
	}()

	b.t.Cleanup(func() {
		cancel()

		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = read.Close()
	})

	return lines
}
