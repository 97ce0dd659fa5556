//go:build unix

package main

import (
	"bufio"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/creack/pty"

	"github.com/ismurov/pglocker"
)

// locks makes free locks.
func (b *bed) locks(n int) {
	b.t.Helper()
	b.exec("INSERT INTO pglocker.lock_statuses SELECT 'job/' || lpad(i::text, 8, '0'), 2, clock_timestamp() - interval '100 days' FROM generate_series(1, $1) AS i", n)
}

// TestPruneDryRunOfMany: the server counts what would be pruned, and doesn't send it.
func TestPruneDryRunOfMany(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.locks(5_000)
	v := b.behindValve(noReply, "no request has this")

	if p := decode[pruned](t, b.ok("prune", "--idle", "90d", "--dry-run", "-o", "json")); p.Locks != 5_000 {
		t.Errorf("%+v", p)
	}

	if n := v.replied.Load(); n > 100_000 {
		t.Errorf("the server has sent %d bytes", n)
	}
}

// TestWatchMany: of a large table as much is read as there is to show.
func TestWatchMany(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.locks(30_000)

	s := onTerminal(t, b.command("ls", "--watch"))
	s.shows(0, "at least 10020 locks at ")
	s.shows(0, "... and at least 10000 more")
	must(t, s.cmd.Process.Signal(syscall.SIGINT))
	s.ends(130)
}

// TestListReadsOn: a listing for which the server reads every row says so on a terminal, if it takes long.
func TestListReadsOn(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ prefix, says string }{{"", "reads through the whole table"}, {"a/", "reads through all that begins so"}} {
		b := newBed(t)
		b.hold("a/held")
		v := b.behindValve(noReplies, "pglocker_listed")

		s := onTerminal(t, b.command("ls", "--held", c.prefix))
		s.shows(0, c.says)
		v.open()
		s.shows(0, "a/held")
		s.ends(0)
	}
}

// TestListIsPaged: that the server reads on is said before the first lock alone. Then a pager may wait for its user.
func TestListIsPaged(t *testing.T) {
	t.Parallel()

	for _, paged := range []bool{false, true} {
		shown, stderr, err := pty.Open()
		must(t, err)

		defer shown.Close()
		defer stderr.Close()

		l := &listing{app: &app{stderr: stderr}, filter: pglocker.LocksFilter{Held: true}}

		synctest.Test(t, func(t *testing.T) {
			stop := l.tellOfScan()
			defer stop()

			if paged {
				must(t, untilFirst{l.text(io.Discard, true), stop}.add(lockRecord{}))
			}

			time.Sleep(2 * scanTold)
			synctest.Wait()
		})

		_, err = stderr.WriteString("the end\n")
		must(t, err)

		line, err := bufio.NewReader(shown).ReadString('\n')
		must(t, err)

		if said := strings.Contains(line, "reads through"); said == paged {
			t.Errorf("paged %t: %q", paged, line)
		}
	}
}
