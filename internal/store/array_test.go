package store

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestTextArray(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		values []string
		want   string
	}{
		{nil, `{}`},
		{[]string{""}, `{""}`},
		{[]string{"NULL", "null"}, `{"NULL","null"}`},
		{[]string{`a"b`, `a\b`, `\"`}, `{"a\"b","a\\b","\\\""}`},
		{[]string{"{", "}", ",", " "}, `{"{","}",","," "}`},
		{[]string{"\n", "é", "🔒"}, "{\"\n\",\"é\",\"🔒\"}"},
	} {
		if got := textArray(test.values); got != test.want {
			t.Errorf("%q is written as %s, want %s", test.values, got, test.want)
		}
	}
}

// FuzzTextArray reads literals back by the rules of PostgreSQL's array_in for
// quoted elements. That the server reads them so too is another test's matter.
func FuzzTextArray(f *testing.F) {
	for _, seed := range []string{"", "NULL", `"`, `\`, `\\"`, "{a,b}", "\n", "🔒", " x "} {
		f.Add(seed, "b")
		f.Add("a", seed)
	}

	f.Fuzz(func(t *testing.T, a, b string) {
		if !utf8.ValidString(a) || !utf8.ValidString(b) {
			t.Skip("lock ids are valid UTF-8")
		}

		literal := textArray([]string{a, b})

		got, rest := readQuoted(t, strings.TrimPrefix(literal, "{"))
		if got != a || !strings.HasPrefix(rest, ",") {
			t.Fatalf("%q is written as %s, whose first element is %q", a, literal, got)
		}

		got, rest = readQuoted(t, rest[1:])
		if got != b || rest != "}" {
			t.Fatalf("%q is written as %s, whose second element is %q", b, literal, got)
		}
	})
}

// readQuoted reads one quoted element.
func readQuoted(t *testing.T, s string) (value, rest string) {
	t.Helper()

	if !strings.HasPrefix(s, `"`) {
		t.Fatalf("%q is not quoted", s)
	}

	var b strings.Builder

	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '"':
			return b.String(), s[i+1:]
		case '\\':
			i++
		}

		if i < len(s) {
			b.WriteByte(s[i])
		}
	}

	t.Fatalf("%q has no end", s)

	return "", ""
}

func TestBigintArray(t *testing.T) {
	t.Parallel()

	for want, values := range map[string][]int64{
		`{}`:                     nil,
		`{0}`:                    {0},
		`{1,-2,3}`:               {1, -2, 3},
		`{9223372036854775807}`:  {1<<63 - 1},
		`{-9223372036854775808}`: {-1 << 63},
	} {
		if got := bigintArray(values); got != want {
			t.Errorf("%d is written as %s, want %s", values, got, want)
		}
	}
}

func TestMicroseconds(t *testing.T) {
	t.Parallel()

	for ttl, want := range map[time.Duration]int64{
		0:                                       0,
		1:                                       1,
		time.Microsecond - 1:                    1,
		time.Microsecond:                        1,
		time.Microsecond + 1:                    2,
		time.Millisecond + 1:                    1001,
		time.Hour:                               3_600_000_000,
		1<<63 - 1:                               9_223_372_036_854_776,
		100*365*24*time.Hour - time.Duration(1): 3_153_600_000_000_000,
	} {
		if got := Microseconds(ttl); got != want {
			t.Errorf("%d ns are %d µs, want %d", ttl, got, want)
		}
	}
}
