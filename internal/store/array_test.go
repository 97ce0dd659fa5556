package store

import (
	"encoding/json"
	"slices"
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

// FuzzTextArray reads literals of several lock ids back by the rules of PostgreSQL's
// array_in for quoted elements. That the server reads them so too is another test's matter.
func FuzzTextArray(f *testing.F) {
	for _, seed := range []string{"", "NULL", `"`, `\`, `\\"`, "{a,b}", "\n", "🔒", " x "} {
		f.Add(seed, "b", seed)
		f.Add("a", seed, "")
	}

	f.Fuzz(func(t *testing.T, a, b, c string) {
		ids := []string{a, b, c, b + a, c + `"` + a}
		if !utf8.ValidString(a) || !utf8.ValidString(b) || !utf8.ValidString(c) {
			t.Skip("lock ids are valid UTF-8")
		}

		for n := range len(ids) + 1 {
			literal := textArray(ids[:n])
			rest := literal

			for i, id := range ids[:n] {
				var got string

				// Before the first stands a brace, before each other one a comma.
				if i == 0 && rest[0] != '{' || i > 0 && rest[0] != ',' {
					t.Fatalf("%q is written as %s", ids[:n], literal)
				}

				if got, rest = readQuoted(t, rest[1:]); got != id || rest == "" {
					t.Fatalf("%q is written as %s, whose element %d is %q", ids[:n], literal, i, got)
				}
			}

			if n > 0 && rest != "}" || n == 0 && rest != "{}" {
				t.Fatalf("%q is written as %s", ids[:n], literal)
			}
		}
	})
}

// FuzzBigintArray reads literals of several numbers back.
func FuzzBigintArray(f *testing.F) {
	for _, seed := range []int64{0, 1, -1, 1<<63 - 1, -1 << 63, 1 << 40} {
		f.Add(seed, int64(1), -seed)
	}

	f.Fuzz(func(t *testing.T, a, b, c int64) {
		numbers := []int64{a, b, c}

		for n := range len(numbers) + 1 {
			literal := bigintArray(numbers[:n])

			// JSON writes a list of numbers in the same way, but for the parentheses.
			var got []int64
			if err := json.Unmarshal([]byte(strings.NewReplacer("{", "[", "}", "]").Replace(literal)), &got); err != nil {
				t.Fatalf("%d are written as %s: %v", numbers[:n], literal, err)
			}

			if !slices.Equal(got, numbers[:n]) {
				t.Fatalf("%d are written as %s, which is read as %d", numbers[:n], literal, got)
			}
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
