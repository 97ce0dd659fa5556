package store

import (
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// FuzzIdentifiers reads a quoted name back by the rules of PostgreSQL's lexer: two
// quotes are one, one is the end, and nothing else is special.
func FuzzIdentifiers(f *testing.F) {
	for _, seed := range []string{
		"plain", `"`, `""`, `a"b`, `\`, ".", `"."`, "\n", "🔒", "caf\xe9", "a\x00", "", strings.Repeat("é", 31) + "x", strings.Repeat("x", 64),
	} {
		f.Add(seed, "lock_statuses")
		f.Add("public", seed)
	}

	channel := regexp.MustCompile(`^pglocker_[0-9a-f]{16}$`)

	f.Fuzz(func(t *testing.T, schema, name string) {
		usable := func(s string) bool {
			return s != "" && len(s) <= 63 && utf8.ValidString(s) && !strings.Contains(s, "\x00")
		}
		table := Table{Schema: schema, Name: name}

		if err := table.Validate(); (err == nil) != (usable(schema) && usable(name)) {
			t.Fatalf("Validate of %q and %q: %v", schema, name, err)
		}

		gotSchema, rest := readIdentifier(t, table.String())
		if gotSchema != schema || !strings.HasPrefix(rest, ".") {
			t.Fatalf("%q is written as %s, whose schema is %q", schema, table, gotSchema)
		}

		if gotName, rest := readIdentifier(t, rest[1:]); gotName != name || rest != "" {
			t.Fatalf("%q is written as %s, whose name is %q", name, table, gotName)
		}

		if !channel.MatchString(table.Channel()) {
			t.Fatalf("the channel of %s is %q", table, table.Channel())
		}
	})
}

// readIdentifier reads one quoted identifier.
func readIdentifier(t *testing.T, s string) (name, rest string) {
	t.Helper()

	if !strings.HasPrefix(s, `"`) {
		t.Fatalf("%q is not quoted", s)
	}

	for i := 1; i < len(s); i++ {
		if s[i] != '"' {
			continue
		}

		if !strings.HasPrefix(s[i+1:], `"`) {
			return strings.ReplaceAll(s[1:i], `""`, `"`), s[i+1:]
		}

		i++
	}

	t.Fatalf("%q has no end", s)

	return "", ""
}

// FuzzInline reads inlined arguments back by the rules for escape strings, E'...', and sees that
// what stood between them is untouched.
func FuzzInline(f *testing.F) {
	for _, seed := range []string{"", "'", `\`, `\'`, "$1", "$2", `"`, "';--", "E'", "\n", "🔒", "$$"} {
		f.Add(seed, "b", int64(1))
		f.Add("a", seed, int64(-1)<<63)
	}

	f.Fuzz(func(t *testing.T, a, b string, n int64) {
		if strings.Contains(a+b, "\x00") || !utf8.ValidString(a) || !utf8.ValidString(b) {
			t.Skip("is never sent")
		}

		text, ok := inline(quoteLiteral, `SELECT $2, '$1', "$3", $1 /**/ $3, $1`, []any{a, b, n})
		if !ok {
			t.Fatal("refused")
		}

		first := big.NewInt(n).String()

		for _, want := range []struct{ before, value string }{
			{"SELECT ", b}, {`, '$1', "$3", `, a}, {" /**/ '" + first + "', ", a},
		} {
			if !strings.HasPrefix(text, want.before) {
				t.Fatalf("%q should begin with %q", text, want.before)
			}

			var got string
			if got, text = readLiteral(t, text[len(want.before):]); got != want.value {
				t.Fatalf("%q is read as %q", want.value, got)
			}
		}

		if text != "" {
			t.Fatalf("%q is left", text)
		}
	})
}

// readLiteral reads one escape string, E'...', in which only the quote and the backslash are
// escaped.
func readLiteral(t *testing.T, s string) (value, rest string) {
	t.Helper()

	if !strings.HasPrefix(s, "E'") {
		t.Fatalf("%q is no literal", s)
	}

	var b strings.Builder

	for i := 2; i < len(s); i++ {
		switch {
		case strings.HasPrefix(s[i:], `\\`), strings.HasPrefix(s[i:], "''"):
			i++
		case s[i] == '\'':
			return b.String(), s[i+1:]
		case s[i] == '\\':
			t.Fatalf("%q has another escape", s)
		}

		b.WriteByte(s[i])
	}

	t.Fatalf("%q has no end", s)

	return "", ""
}

// FuzzInlineText: whatever stands in a statement, inlining neither changes what isn't a
// parameter nor fails in a way that is no refusal.
func FuzzInlineText(f *testing.F) {
	for _, seed := range []string{"SELECT $1", "$", "$$", "$0", "$99999999999999999999", "'$1", `"$1`, "''$1''", "$1$1", "$01"} {
		f.Add(seed)
	}

	f.Fuzz(func(t *testing.T, text string) {
		got, ok := inline(quoteLiteral, text, []any{"x"})
		if !ok {
			return
		}

		// Outside of quotes $1 was replaced, and inside nothing was.
		if back := strings.ReplaceAll(got, "E'x'", ""); len(back) > len(text) {
			t.Fatalf("%q became %q", text, got)
		}

		if !strings.Contains(text, "$") && got != text {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

// FuzzMicroseconds: the database is asked for the TTL, or less than a microsecond more.
func FuzzMicroseconds(f *testing.F) {
	for _, seed := range []int64{0, 1, 999, 1000, 1001, 1<<63 - 1, int64(time.Hour), int64(time.Hour) + 1} {
		f.Add(seed)
	}

	f.Fuzz(func(t *testing.T, ns int64) {
		if ns < 0 {
			t.Skip("is never sent")
		}

		over := new(big.Int).Mul(big.NewInt(Microseconds(time.Duration(ns))), big.NewInt(1000))
		if over.Sub(over, big.NewInt(ns)); over.Sign() < 0 || over.Cmp(big.NewInt(1000)) >= 0 {
			t.Fatalf("%d ns are %d µs", ns, Microseconds(time.Duration(ns)))
		}
	})
}

// FuzzFamilies: the gate of a row is that of its family, whatever the family's name, and slots alone are slots. What
// isn't an id of this library is read without harm.
func FuzzFamilies(f *testing.F) {
	for _, seed := range []string{
		"", "a", ":", "a:1", "a:gate", "\x00", "\xff", "gate", prefixSemaphore, prefixSemaphore + "a:", prefixSemaphore + "a",
		prefixRWLock + "a:w", prefixRWLock + ":", "pglocker:semaphore", "pglocker:election:a:1", prefixSemaphore + "a:01",
	} {
		f.Add(seed, uint(1))
		f.Add(seed, uint(10_000))
	}

	f.Fuzz(func(t *testing.T, name string, n uint) {
		for _, prefix := range []string{prefixSemaphore, prefixRWLock} {
			family := prefix + name + ":"

			for part, isSlot := range map[string]bool{
				fmt.Sprint(n): n > 0, PartGate: false, PartWriter: false, PartIntent: false, "": false,
			} {
				if got := GateOf(family + part); got != family+PartGate {
					t.Errorf("the gate of %q is %q", family+part, got)
				}

				if got := IsSlot(family + part); got != isSlot {
					t.Errorf("%q is a slot: %t", family+part, got)
				}
			}
		}

		gate, isFamily := GateOf(name), strings.HasPrefix(name, prefixSemaphore) || strings.HasPrefix(name, prefixRWLock)
		if isFamily != (gate != "") || IsSlot(name) && !isFamily {
			t.Errorf("%q has the gate %q, and is a slot: %t", name, gate, IsSlot(name))
		}
	})
}
