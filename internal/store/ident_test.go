package store

import (
	"errors"
	"strings"
	"testing"
)

func TestQuoteIdentifier(t *testing.T) {
	t.Parallel()

	for name, want := range map[string]string{
		`plain`:      `"plain"`,
		`Upper Case`: `"Upper Case"`,
		`we"ird`:     `"we""ird"`,
		`""`:         `""""""`,
		`a.b`:        `"a.b"`,
		`back\slash`: `"back\slash"`,
		"new\nline":  "\"new\nline\"",
		`🔒`:          `"🔒"`,
	} {
		if got := quoteIdentifier(name); got != want {
			t.Errorf("%q is quoted as %s, want %s", name, got, want)
		}
	}
}

func TestValidateIdentifiers(t *testing.T) {
	t.Parallel()

	for _, good := range []string{
		"a", " ", ".", `"`, `\`, "\n", "🔒", "select", strings.Repeat("x", 63), strings.Repeat("é", 31) + "x",
	} {
		if err := (Table{Schema: good, Name: good}).Validate(); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}

	for _, bad := range []string{
		"", "\x00", "a\x00b", "caf\xe9", strings.Repeat("x", 64), strings.Repeat("é", 32), strings.Repeat("x", 1<<20),
	} {
		for _, table := range []Table{{Schema: bad, Name: "good"}, {Schema: "good", Name: bad}} {
			if err := table.Validate(); !errors.Is(err, ErrInvalidIdentifier) {
				t.Errorf("%q: %v, want ErrInvalidIdentifier", table, err)
			}
		}
	}
}
