package store

import "testing"

func TestInline(t *testing.T) {
	t.Parallel()

	for _, test := range []struct {
		text string
		args []any
		want string
	}{
		{"SELECT 1", nil, "SELECT 1"},
		{"SELECT $1, $2, $1", []any{"a", int64(-7)}, "SELECT E'a', '-7', E'a'"},
		{"SELECT $1::text", []any{`'; DROP TABLE x; --\`}, `SELECT E'''; DROP TABLE x; --\\'::text`},
		{`SELECT "$1", "a""$1", '$1', 'it''s $1', $1`, []any{"x"}, `SELECT "$1", "a""$1", '$1', 'it''s $1', E'x'`},
		{`SELECT "it's", $1`, []any{"x"}, `SELECT "it's", E'x'`},
		{"SELECT $10, $1", []any{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"}, "SELECT E'10', E'1'"},
		{"SELECT $1, $2", []any{"$2", "$1"}, "SELECT E'$2', E'$1'"},
	} {
		if got, ok := inline(quoteLiteral, test.text, test.args); !ok || got != test.want {
			t.Errorf("%s with %q: %s, %t, want %s", test.text, test.args, got, ok, test.want)
		}
	}

	for _, test := range []struct {
		text string
		args []any
	}{
		{"SELECT $1", nil},
		{"SELECT $0", []any{"x"}},
		{"SELECT $$x$$", []any{"x"}},
		{"SELECT $1", []any{3.14}},
	} {
		if got, ok := inline(quoteLiteral, test.text, test.args); ok {
			t.Errorf("%s with %v: %s, want a refusal", test.text, test.args, got)
		}
	}
}
