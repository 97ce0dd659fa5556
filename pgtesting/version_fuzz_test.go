package pgtesting

import (
	"fmt"
	"strings"
	"testing"
)

// FuzzVersion: what is printed is read without a panic, and a version that is read is part
// of what was printed, and has the number that a server of it would show.
func FuzzVersion(f *testing.F) {
	for _, output := range []string{
		"postgres (PostgreSQL) 15.6 (Debian 15.6-0+deb12u1)\n", "postgres (PostgreSQL) 19beta1", "postgres (PostgreSQL) 18devel",
		"postgres (PostgreSQL) 9.6.24", "postgres (PostgreSQL) 99999999999999999999.1", "postgres (PostgreSQL) .1", "initdb: error",
	} {
		f.Add(output)
	}

	f.Fuzz(func(t *testing.T, output string) {
		v, err := parseVersion(output)
		if err != nil {
			if v != (version{}) {
				t.Errorf("%+v with an error", v)
			}

			return
		}

		if !strings.Contains(output, "(PostgreSQL) "+v.text) {
			t.Errorf("%q was read from %q", v.text, output)
		}

		if major := fmt.Sprint(v.num / 10000); v.num < 1<<31 && !strings.HasPrefix(strings.TrimLeft(v.text, "0"), strings.TrimLeft(major, "0")) {
			t.Errorf("%q has the number %d", v.text, v.num)
		}
	})
}
