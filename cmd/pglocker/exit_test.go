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
