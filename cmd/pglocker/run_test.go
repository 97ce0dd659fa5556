//go:build unix

package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
)

func TestRunExitCodes(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.hold("held")

	for _, test := range []struct {
		code int
		says string
		args []string
	}{
		{0, "", []string{"x", "true"}},
		{1, "", []string{"x", "false"}},
		{0, "", []string{"x", "--", "true"}},
		{7, "", []string{"x", "sh", "-c", "exit 7"}},
		{143, "", []string{"x", "sh", "-c", "kill -TERM $$"}},
		{137, "", []string{"x", "sh", "-c", "kill -KILL $$"}},
		{75, `"held" is held by other#`, []string{"-n", "held", "true"}},
		{75, `"held" is held by other#`, []string{"-w", "0", "held", "true"}},
		{75, `already locked: "held"`, []string{"-w", "2s", "held", "true"}},
		{75, `already locked: "held"`, []string{"-w", "0.5", "held", "true"}},
		{75, `"held" is held by other#`, []string{"-w", "0.0", "held", "true"}},
		{64, "invalid duration", []string{"-w", "-1", "x", "true"}},
		{75, `"held" is held by other#`, []string{"-n", "a", "held", "--", "true"}},
		{3, `"held" is held by other#`, []string{"-n", "-E", "3", "held", "true"}},
		{0, "", []string{"-n", "-E", "0", "held", "true"}},
		{127, "not found: no-such-program", []string{"x", "no-such-program"}},
		{127, "not found: /no/such/program", []string{"x", "/no/such/program"}},
		{126, "can't be executed", []string{"x", "/etc/passwd"}},
		{126, "can't be executed", []string{"x", "/etc"}},
		{64, "name a lock and a program", []string{"x"}},
		{64, "name a lock and a program", []string{}},
		{64, "name a lock and a program", []string{"a", "b", "--"}},
		{64, "write sh -c '...'", []string{"x", "-c", "true | true"}},
		{64, "unknown flag", []string{"--no-such-flag", "x", "true"}},
		{64, "invalid duration", []string{"--ttl", "soon", "x", "true"}},
		{64, "invalid TTL", []string{"--ttl", "0", "x", "true"}},
		{64, "not within 0 and 255", []string{"-E", "256", "x", "true"}},
		{64, "must be one", []string{"--permits", "0", "x", "true"}},
		{64, "one name", []string{"--permits", "2", "a", "b", "--", "true"}},
		{64, "none of the others can be", []string{"-n", "-w", "1s", "x", "true"}},
		{64, "invalid lock id", []string{strings.Repeat("x", 1025), "true"}},
		{64, "reserved", []string{"pglocker:x", "true"}},
		{69, "pglocker migrate", []string{"--table", "none", "x", "true"}},
		{69, "can't connect", []string{"-d", "postgres://127.0.0.1:1/x", "x", "true"}},
	} {
		t.Run(strings.Join(append([]string{"run"}, test.args...), " "), func(t *testing.T) {
			t.Parallel()

			on := *b
			on.t = t

			var says []string
			if test.says != "" {
				says = []string{test.says}
			}

			args := append([]string{"run"}, test.args...)
			if o := on.fails(test.code, says, args...); test.says == "" && o.stderr != "" {
				t.Errorf("it says %s", o.stderr)
			}
		})
	}
}

func TestRunArguments(t *testing.T) {
	t.Parallel()

	b := newBed(t)

	for _, test := range []struct {
		want string
		args []string
	}{
		{"-n|-E|5|", []string{"x", "printf", "%s|", "-n", "-E", "5"}},
		{"a|--|b|", []string{"x", "--", "printf", "%s|", "a", "--", "b"}},
		{"--|b|", []string{"x", "y", "--", "printf", "%s|", "--", "b"}},
		{"a b||*|", []string{"x", "printf", "%s|", "a b", "", "*"}},
	} {
		if got := b.ok(append([]string{"run"}, test.args...)...); got != test.want {
			t.Errorf("%q prints %q, want %q", test.args, got, test.want)
		}
	}
}

// environmentOf returns the variables about locks that a program under the command finds.
func (b *bed) environmentOf(args ...string) (found []string) {
	b.t.Helper()

	for line := range strings.Lines(b.ok(append(append([]string{"run"}, args...), "--", "env")...)) {
		name, _, _ := strings.Cut(line, "=")
		if strings.HasPrefix(name, "PGLOCKER_") && name != "PGLOCKER_DSN" {
			found = append(found, strings.TrimSpace(line))
		}
	}

	slices.Sort(found)

	return found
}

func TestRunEnvironment(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	// As if another pglocker run had started this one.
	b.env = append(b.env, "PGLOCKER_TOKEN=99", "PGLOCKER_LOCK_ID_2=old", "PGLOCKER_LOCKS=2", "PGLOCKER_SLOT=4")

	for _, test := range []struct {
		args, want []string
	}{
		{[]string{"a b"}, []string{"PGLOCKER_LOCK_ID=a b", "PGLOCKER_TOKEN=2"}},
		{
			[]string{"z", "a"},
			[]string{"PGLOCKER_LOCKS=2", "PGLOCKER_LOCK_ID_1=z", "PGLOCKER_LOCK_ID_2=a", "PGLOCKER_TOKEN_1=2", "PGLOCKER_TOKEN_2=2"},
		},
		{[]string{"--permits", "3", "s"}, []string{"PGLOCKER_LOCK_ID=s", "PGLOCKER_SLOT=1", "PGLOCKER_TOKEN=2"}},
		{[]string{"--shared", "r"}, []string{"PGLOCKER_LOCK_ID=r", "PGLOCKER_TOKEN=2"}},
	} {
		if got := b.environmentOf(test.args...); !slices.Equal(got, test.want) {
			t.Errorf("%q: %q, want %q", test.args, got, test.want)
		}
	}
}

// TestRunInherits: the program has the descriptors that the command was given, and none of the command's own,
// such as its connection.
func TestRunInherits(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	list := []string{"sh", "-c", "ls -l /proc/$$/fd | sed -n 's/.* \\([0-9]* -> .*\\)/\\1/p' | grep -v ' -> pipe:'"}

	direct := b.command("")
	direct.Path, direct.Args = "/bin/sh", list

	if got, want := b.ok(append([]string{"run", "x"}, list...)...), outcomeOf(t, direct).stdout; got != want {
		t.Errorf("it has the descriptors\n%swant\n%s", got, want)
	}
}

func TestRunPermits(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	first := b.launch("run", "--permits", "2", "s", "sh", "-c", "echo $PGLOCKER_SLOT; exec sleep 1000")
	first.says("1")

	second := b.launch("run", "--permits", "2", "s", "sh", "-c", "echo $PGLOCKER_SLOT; exec sleep 1000")
	second.says("2")

	b.fails(75, nil, "run", "-n", "--permits", "2", "s", "true")
	b.ok("run", "-n", "--permits", "3", "s", "true")
}

func TestRunSharedAndExclusive(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	reader := b.launch("run", "-s", "r", "sh", "-c", "echo reads; exec sleep 1000")
	reader.says("reads")

	b.ok("run", "-n", "-s", "r", "true")
	b.fails(75, nil, "run", "-n", "-x", "r", "true")

	writer := b.launch("run", "-x", "r", "echo", "writes")

	reader.signal(sigTerm)
	reader.ends(143)
	writer.says("writes")
	writer.ends(0)
}

func TestRunMinHold(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.ok("run", "--min-hold", "1d", "x", "true")
	b.fails(75, nil, "run", "-n", "x", "true")

	status, err := b.locker.GetLockStatus(t.Context(), "x")
	must(t, err)

	if left := time.Until(status.ExpiresAt); left < 23*time.Hour || left > 25*time.Hour {
		t.Errorf("it is held for another %s", left)
	}
}

// TestRunWaits: the command waits for the lock, and the program has it alone.
func TestRunWaits(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	lock := b.hold("x")
	p := b.launch("run", "x", "sh", "-c", "echo $PGLOCKER_TOKEN; exec sleep 1000")
	b.waitedFor("x")
	must(t, lock.Unlock(t.Context()))
	p.line()

	if b.free("x") {
		t.Error("the lock is free while the program runs")
	}

	p.signal(sigTerm)
	p.ends(143)

	if !b.free("x") {
		t.Error("the lock is held after the end of the program")
	}
}

// TestRunUnderOldTable: three columns are enough.
func TestRunUnderOldTable(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.exec("CREATE TABLE plain (lock_id text PRIMARY KEY, generation bigint NOT NULL, expires_at timestamptz NOT NULL)")
	b.env = append(b.env, "PGLOCKER_SCHEMA=public", "PGLOCKER_TABLE=plain")

	if got := b.ok("run", "x", "sh", "-c", "echo $PGLOCKER_TOKEN"); got != "2\n" {
		t.Errorf("the token is %q", got)
	}

	locker, err := pglocker.New(b.db, &pglocker.Config{Scheme: pglocker.PublicScheme, Table: "plain"})
	must(t, err)

	lock, err := locker.TryLock(t.Context(), "x", time.Minute)
	must(t, err)
	must(t, lock.Unlock(t.Context()))
}
