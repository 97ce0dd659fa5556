//go:build unix

package top_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/pgtesting"
)

// newDatabase is a database with a history.
func newDatabase(t *testing.T) (url string, db *sql.DB) {
	t.Helper()

	url = databases.NewDatabase(t).String()
	db = databases.Open(t, url)

	if err := pglocker.MigrateHistory(t.Context(), db, &pglocker.Config{}); err != nil {
		t.Fatal(err)
	}

	return url, db
}

// TestLive: the screen follows grants, waiters, releases and the leader of an election.
func TestLive(t *testing.T) {
	t.Parallel()

	url, db := newDatabase(t)
	web, ops := newProcess(t, db, "web-3:4121"), newProcess(t, db, "ops-1:881")

	x := start(t, url, 80, 24)
	x.shows("pglocker top", "● live", "Nothing is held.", "0 held")

	// A grant, a waiter, a hand-over to it, and the end.
	report := web.hold("nightly-report")
	x.row("lock", "nightly-report", "web-3:4121")
	x.shows("1 held", "0 waited for", "oldest hold")

	stop := ops.wait("nightly-report")
	x.row("nightly-report", "web-3:4121", "yes")
	x.shows("1 waited for")

	if err := report.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}

	x.row("nightly-report", "ops-1:881")
	stop()
	x.shows("Nothing is held.", "0 held")

	// The leader changes.
	resign := web.lead("scheduler")
	x.row("election", "scheduler", "web-3:4121")
	ops.lead("scheduler")
	x.row("scheduler", "web-3:4121", "yes")
	resign()
	x.row("election", "scheduler", "ops-1:881")

	// Slots, readers, and a writer that waits for them.
	two := web.permit("slow-service", 3, 2)
	x.row("semaphore", "slow-service", "■■ 2 held")
	ops.permit("slow-service", 3, 1)
	x.row("semaphore", "slow-service", "■■■ 3 held")

	if err := two.Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}

	x.row("semaphore", "slow-service", "■□□ 1 held")

	a, b := web.read("config"), ops.read("config")
	x.row("rw lock", "config", "2 readers")
	ops.write("config")
	x.row("rw lock", "config", "2 readers", "yes")

	if err := errors.Join(a.Unlock(t.Context()), b.Unlock(t.Context())); err != nil {
		t.Fatal(err)
	}

	x.row("rw lock", "config", "writer ops-1:881")

	// Rows of the recipes aren't shown.
	for _, text := range []string{"gate", "term", "watermark", "pglocker:"} {
		if strings.Contains(x.text(), text) {
			t.Errorf("%q is on the screen:\n%s", text, x.text())
		}
	}

	x.keys("q")

	if code := x.ends(); code != 0 {
		t.Errorf("exit code %d", code)
	}

	if text := x.text(); strings.TrimSpace(text) != "" {
		t.Errorf("the view is left on the screen:\n%s", text)
	}
}

// TestFreeLive: a lock is found by the filter, opened and freed, and its history has the reason.
func TestFreeLive(t *testing.T) {
	t.Parallel()

	url, db := newDatabase(t)
	web := newProcess(t, db, "web-3:4121")

	stuck := web.hold("import/orders/42")
	for _, id := range []string{"import/orders/43", "nightly", "cleanup"} {
		web.hold(id)
	}

	x := start(t, url, 80, 24)
	x.shows("1 of 4")
	x.keys("/ORDERS")
	x.shows("/ ORDERS", "of 2")
	x.keys(enter)
	x.shows("esc shows all")
	x.keys(enter)
	x.shows("lock  import/orders/42", "holder    web-3:4121#", "HISTORY", "granted")
	x.keys("f")
	x.shows("Free lock import/orders/42?", "Reason:")
	x.keys("host is gone" + enter)
	x.shows("Free it? y/n")
	x.keys("y")
	x.shows("state     free", "forced", "host is gone")

	// The holder is told.
	<-stuck.Context().Done()

	if cause := context.Cause(stuck.Context()); !errors.Is(cause, pglocker.ErrLockLost) {
		t.Errorf("the holder's context ended with %v", cause)
	}

	x.keys(escape)
	x.shows("3 held", "of 1")
	x.keys(escape)
	x.shows("of 3")
	x.keys(ctrlC)

	if code := x.ends(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestResize: the view fits a terminal of any size, and grows back.
func TestResize(t *testing.T) {
	t.Parallel()

	url, db := newDatabase(t)
	web := newProcess(t, db, "web-3:4121")
	web.hold("nightly-report")
	web.hold("second")

	x := start(t, url, 80, 24)
	x.shows("KIND", "TOKEN", "LEASE", "nightly-report", "? help")
	x.resize(50, 8)
	x.hides("TOKEN")
	x.shows("nightly-report", "HOLDER")
	x.resize(20, 3)
	x.hides("HOLDER")
	x.shows("› nightly-report", "second")
	x.keys(down)
	x.shows("› second")
	x.resize(120, 40)
	x.shows("KIND", "TOKEN", "LEASE", "? help")

	if lines := strings.Count(x.text(), "\n"); lines != 40 {
		t.Errorf("%d lines", lines)
	}

	x.keys("q")
	x.ends()
}

// TestSignal: TERM ends the view, and the terminal is as it was. So it is after a panic.
func TestSignal(t *testing.T) {
	t.Parallel()

	url, _ := newDatabase(t)

	x := start(t, url, 80, 24)
	x.shows("● live")

	if err := x.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	if code := x.ends(); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d", code)
	}

	x = start(t, url, 80, 24, "TOP_TEST_PANIC=1")
	if code := x.ends(); code != 1 {
		t.Errorf("exit code %d", code)
	}

	x.mu.Lock()
	defer x.mu.Unlock()

	if !strings.Contains(x.output.String(), "a panic of the test") {
		t.Errorf("the panic isn't told:\n%s", x.output.String())
	}
}

// TestNoColor: nothing is coloured, and the row of the cursor can still be told.
func TestNoColor(t *testing.T) {
	t.Parallel()

	url, db := newDatabase(t)
	newProcess(t, db, "web").hold("nightly")

	x := start(t, url, 80, 24, "NO_COLOR=1")
	x.shows("› lock", "nightly")
	x.mu.Lock()
	defer x.mu.Unlock()

	for y := range 24 {
		for col := range 80 {
			if c := x.screen.CellAt(col, y); c != nil && (c.Style.Fg != nil || c.Style.Bg != nil) {
				t.Fatalf("line %d, column %d has the colour %v", y, col, c.Style)
			}
		}
	}
}

// TestThreeColumns: what the table doesn't tell is said.
func TestThreeColumns(t *testing.T) {
	t.Parallel()

	url := databases.NewDatabase(t).String()
	db := databases.Open(t, url)

	if _, err := db.ExecContext(t.Context(), `ALTER TABLE pglocker.lock_statuses
		DROP COLUMN owner, DROP COLUMN acquired_at, DROP COLUMN contended_until`); err != nil {
		t.Fatal(err)
	}

	newProcess(t, db, "web").hold("nightly")

	x := start(t, url, 80, 24)
	x.shows("The table has three columns", "? waited for")
	x.row("lock", "nightly", "not known", "?")
	x.keys(enter)
	x.shows("holder    not known: the table has three columns")
}

// TestRestart: while the server is down the data stays, and its age is said. Afterwards the view goes on.
func TestRestart(t *testing.T) {
	t.Parallel()

	server, err := pgtesting.StartServer(t.Context())
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = server.Stop() })

	db := databases.Open(t, server.URL())
	if err := pglocker.MigrateDB(t.Context(), db, &pglocker.Config{}); err != nil {
		t.Fatal(err)
	}

	web := newProcess(t, db, "web-3:4121")
	web.hold("nightly-report")

	x := start(t, server.URL(), 80, 24)
	x.shows("● live", "nightly-report")

	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}

	x.shows("▲ stale since", "! Trying again: no connection", "nightly-report")

	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}

	x.shows("● live")
	x.hides("stale")
	web.hold("after-the-restart")
	x.shows("after-the-restart")

	if err := server.Freeze(); err != nil {
		t.Fatal(err)
	}

	x.shows("▲ stale since", "no answer for")

	if err := server.Thaw(); err != nil {
		t.Fatal(err)
	}

	x.shows("● live")
	x.keys("q")
	x.ends()
}
