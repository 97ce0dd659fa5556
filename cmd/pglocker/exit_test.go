package main

import (
	"net/url"
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
	b.fails(exitUnavailable, []string{`database "none" does not exist`, "-d, PGDATABASE"}, "ls", "-d", withDatabase(t, b.url, "none"))
}

// TestErrorsForShell: an error says what a person at a shell does, and names no function of the library.
func TestErrorsForShell(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.exec("DROP TABLE pglocker.lock_history CASCADE")
	b.exec("DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET statement_timeout = 1', current_database()); END $$")

	for _, args := range [][]string{{"history"}, {"history", "x"}, {"history", "x", "--at", "0s"}} {
		o := b.fails(exitUnavailable, nil, append(args, "-d", withOptions(t, b.url, "-c statement_timeout=0"))...)

		if !strings.Contains(o.stderr, "there is no history") || !strings.Contains(o.stderr, "pglocker migrate --history") ||
			strings.Contains(o.stderr, "MigrateHistory") || strings.Contains(o.stderr, "SQLSTATE") {
			t.Errorf("%q says %s", args, o.stderr)
		}
	}

	// A statement that takes no time may still be in time.
	b.fails(exitUnavailable, []string{"statement_timeout of the role", "`pglocker doctor`"}, "migrate", "--table", "new")

	b.exec("CREATE TABLE public.odd (lock_id text PRIMARY KEY)")

	odd := b.fails(exitUnavailable, []string{`(election "e")`},
		"elect", "-d", withOptions(t, b.url, "-c statement_timeout=0"), "--schema", "public", "--table", "odd", "e", "true")
	if strings.Contains(odd.stderr, "run \"e\"") {
		t.Errorf("it says %s", odd.stderr)
	}
}

// withDatabase is a URL of another database, and withOptions one with settings of the session.
func withDatabase(t *testing.T, text, name string) string {
	t.Helper()

	u, err := url.Parse(text)
	must(t, err)

	u.Path = "/" + name

	return u.String()
}

func withOptions(t *testing.T, text, options string) string {
	t.Helper()

	u, err := url.Parse(text)
	must(t, err)

	query := u.Query()
	query.Set("options", options)
	u.RawQuery = strings.ReplaceAll(query.Encode(), "+", "%20")

	return u.String()
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
