package store

import "testing"

// TestASCIILiteral: what isn't ASCII is written in escapes, within quotes as they are.
func TestASCIILiteral(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		``:           `E''`,
		`a 'b' \n`:   `E'a ''b'' \\n'`,
		"größe":      `E'gr\U000000F6\U000000DFe'`,
		`\ß'` + "😀":  `E'\\\U000000DF''\U0001F600'`,
		`{"ロ","$1"}`: `E'{"\U000030ED","$1"}'`,
	} {
		if got := asciiLiteral(text); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}

	if got, ok := inline(asciiLiteral, "SELECT $1, $2", []any{"ß$2", int64(-7)}); !ok || got != `SELECT E'\U000000DF$2', '-7'` {
		t.Errorf("%s, %t", got, ok)
	}
}
