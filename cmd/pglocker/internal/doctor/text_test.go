package doctor

import (
	"strings"
	"testing"
	"time"
)

// TestText: a line for each check, then the findings, errors first. What comes from the database changes nothing
// on a terminal.
func TestText(t *testing.T) {
	t.Parallel()

	r := &Report{Database: "shop", Server: "db1:5432", Role: "app", Table: "pglocker.lock_statuses"}

	fine := Check{Name: "server"}
	fine.seen("PostgreSQL 15")

	slow := Check{Name: "storage"}
	slow.seen("not as pglocker migrate sets it")
	slow.note("%s", strings.Repeat("word ", 20))
	slow.find(Warning, "storage", "fillfactor is 100.", "It grows.", "ALTER TABLE t;\n-- or not")

	bad := Check{Name: "locks"}
	bad.seen("a\x1b[31m\u202eb")
	bad.find(Error, "bad", "Seen\n\x1b[2J.", "Means.", "mend\x07 it")

	blind := Check{Name: "plans"}
	blind.skip("not permitted")

	for _, c := range []Check{fine, slow, bad, blind} {
		r.add(c)
	}

	var b strings.Builder

	paint := func(s Status, text string) string { return "<" + string(s) + ">" + text }
	if err := r.WriteText(&b, paint); err != nil {
		t.Fatal(err)
	}

	const want = `shop on db1:5432, as app, pglocker.lock_statuses

<ok>ok    server        PostgreSQL 15
<warning>warn  storage       not as pglocker migrate sets it
        word word word word word word word word word word word word word word
        word word word word word word
<error>ERROR locks         a?[31m?b
<skipped>skip  plans         not permitted

1 error, 1 warning.

<error>ERROR bad
      Seen ?[2J.
      Means.
    > mend? it

<warning>warn  storage
      fillfactor is 100.
      It grows.
    > ALTER TABLE t;
    > -- or not
`
	if got := b.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}

	if code := r.ExitCode(); code != 2 {
		t.Errorf("exit code %d", code)
	}
}

// TestShell: an argument reaches the program as it is, whatever is in it.
func TestShell(t *testing.T) {
	t.Parallel()

	for argument, want := range map[string]string{
		"import-1/a":  "import-1/a",
		"":            "''",
		"-n":          "'-n'",
		"it's $HOME":  `'it'\''s $HOME'`,
		"a\x1b[2J'\"": `$'a\x1b[2J\'"'`,
		"größe":       "'größe'",
	} {
		if got := shell(argument); got != want {
			t.Errorf("%q: %s, want %s", argument, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()

	for d, want := range map[time.Duration]string{
		24 * time.Hour: "24h", 10 * time.Minute: "10m", 61 * time.Second: "1m1s", time.Hour + time.Second: "1h0m1s",
		1234 * time.Millisecond: "1.2s", 123456 * time.Nanosecond: "120µs", 20 * time.Second: "20s", 90 * time.Minute: "1h30m",
	} {
		if got := span(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}
