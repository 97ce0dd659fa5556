package store_test

import (
	"strings"
	"testing"

	"github.com/ismurov/pglocker/internal/store"
)

// TestEveryGenerationHasTheFloor: whatever writes a generation begins at the timeline's
// floor. One that didn't would be found by a failover alone that loses commits.
func TestEveryGenerationHasTheFloor(t *testing.T) {
	t.Parallel()

	for _, full := range []bool{false, true} {
		writes := 0

		for name, text := range store.Texts(full) {
			update := strings.Contains(text, "SET generation =")
			insert := strings.Contains(text, "INSERT INTO") && name != "create" && name != "createMany" // the first generation of all is 1

			if name == "resign" || name == "logTerm" {
				continue // they name a token that was granted
			}

			if name == "makeWatermark" || name == "raiseWatermark" {
				continue // the watermark is no token
			}

			if !update && !insert {
				continue
			}

			writes++

			if !strings.Contains(text, "greatest(") || !strings.Contains(text, "pg_walfile_name") {
				t.Errorf("%s writes a generation without the floor:\n%s", name, text)
			}

			for rest := text; ; {
				_, next, found := strings.Cut(rest, "greatest(l.generation")
				if !found {
					break
				}

				if of := inside(next); !strings.Contains(of, "floor") && !strings.Contains(of, "pg_walfile_name") {
					t.Errorf("%s raises a generation to no floor: %s", name, of)
				}

				rest = next
			}

			if i := strings.Index(text, "{"); i >= 0 {
				t.Errorf("%s is not complete: %s", name, text[i:])
			}
		}

		if writes < 8 {
			t.Errorf("%d statements write a generation, want more", writes)
		}
	}
}

// inside is what stands before the parenthesis that closes.
func inside(text string) string {
	open := 1

	for i, c := range text {
		switch c {
		case '(':
			open++
		case ')':
			open--
		}

		if open == 0 {
			return text[:i]
		}
	}

	return text
}
