package main

import (
	"strings"
	"testing"
)

func TestMistakesOfUsage(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	for _, c := range []struct {
		says string
		args []string
	}{
		{"unknown flag: --foo", []string{"ls", "--foo"}},
		{"unknown command \"lss\"", []string{"lss"}},
		{"invalid --output \"xml\"", []string{"ls", "-o", "xml"}},
		{"unknown kind \"mutex\"", []string{"ls", "--kind", "mutex"}},
		{"held", []string{"ls", "--held", "--expired"}},
		{"invalid schema or table name", []string{"ls", "--table", strings.Repeat("a", 64)}},
	} {
		b.fails(exitUsage, []string{c.says}, c.args...)
	}
}

func TestDatabaseUnavailable(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	b.fails(exitUnavailable, []string{"can't connect", "PGHOST"}, "ls", "-d", "host=127.0.0.1 port=1")
	b.fails(exitUnavailable, []string{`no table "absent"`, "pglocker migrate"}, "ls", "--table", "absent")
}

// TestOwnersOnTerminal: the owner of a lock can't write to the terminal of another's command what that would obey, nor
// a line of its own.
func TestOwnersOnTerminal(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.hold("x")
	b.exec("UPDATE pglocker.lock_statuses SET owner = $1", "\x1b[2J\nanother line: \u202e\u200e\u200f\u061c")

	for _, args := range [][]string{
		{"run", "-n", "x", "true"},
		{"hold", "-n", "x", "--for", "1h", "--reason", "a test"},
	} {
		o := b.fails(exitHeld, []string{`\u001b[2J\u000aanother line: \u202e\u200e\u200f\u061c`}, args...)

		if strings.ContainsAny(o.stderr, "\x1b\u202e\u200e\u200f\u061c") || strings.Count(o.stderr, "\n") != 1 {
			t.Errorf("%q says %q", args, o.stderr)
		}
	}
}
