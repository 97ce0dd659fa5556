package format_test

import (
	"testing"

	"github.com/ismurov/pglocker/bench/internal/format"
)

func TestFormat(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{format.Thousands(7), "7"},
		{format.Thousands(999), "999"},
		{format.Thousands(10_000), "10,000"},
		{format.Thousands(5_000_000), "5,000,000"},
		{format.Count(1234.6), "1,235"},
		{format.Kilobytes(8192), "8 kB"},
		{format.Duration(292_345), "292µs"},
		{format.Duration(15_834_000), "15.83ms"},
		{format.Duration(523_999_000), "524ms"},
		{format.Duration(61_181), "61.18µs"},
		{format.Figures(0), "0"},
		{format.Figures(0.039345), "0.0393"},
		{format.Figures(435.8), "436"},
		{format.Figures(151617), "151,617"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}
